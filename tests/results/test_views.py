"""A view of a ResultCache: what a client gets."""

import io
import json
from datetime import date
from decimal import Decimal

import pytest
from django.conf import settings as project_settings
from django.contrib.auth.decorators import login_required
from django.http import FileResponse, HttpResponse, HttpResponseRedirect
from django.test import override_settings
from kombu.exceptions import OperationalError
from kombu.messaging import Producer

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.results.views import task_view
from tests.results.web import BROWSER, SECRET, a_project  # noqa: F401

REPORT = "/reports/2026/"


@pytest.fixture
def reports(project):
    cache = project.report(timeout=600, stale_for=300)
    project.serve("reports/<int:year>/", task_view(cache, label="Sales report"))
    return cache


def test_who_comes_first_is_told_where_to_ask(project, reports):
    response = project.get(REPORT)

    assert response.status_code == 202
    assert response["Retry-After"] == "2"
    assert response["Cache-Control"] == "no-store"
    assert response["Location"].startswith("/tasks/")
    assert response.json() == {
        "status": "pending",
        "progress": None,
        "attempt": 0,
        "retry_after": 2,
        "result_url": REPORT,
        "status_url": response["Location"],
    }
    assert project.calls == []


def test_the_value_is_there_when_the_task_has_run(project, reports):
    project.get(REPORT)
    project.run()
    response = project.get(REPORT)

    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert response.json() == {"year": 2026, "month": 1, "run": 1}
    assert project.calls == [(2026, 1)]


# -- a value


@pytest.fixture
def made(project, reports):
    """The value is there, and ten seconds old."""
    project.get(REPORT)
    project.run()
    project.advance(10.7)
    return reports


def test_a_value_says_how_old_it_is_and_how_long_a_browser_may_use_it(project, made):
    response = project.get(REPORT)

    assert response["Age"] == "10"
    assert response["Cache-Control"] == "private, max-age=0"
    assert response["Vary"] == "Accept, Cookie, Accept-Language"
    assert "Location" not in response
    assert "Retry-After" not in response


def test_a_browser_may_be_allowed_to_use_a_value_without_asking(project, made):
    project.serve("reports/<int:year>/fresh/", task_view(made, max_age=None))
    project.serve("reports/<int:year>/soon/", task_view(made, max_age=20))

    # What is left once a client has taken the Age off.
    assert project.get("/reports/2026/fresh/")["Cache-Control"] == "private, max-age=599"
    assert project.get("/reports/2026/soon/")["Cache-Control"] == "private, max-age=30"


def test_of_a_value_that_stays_fresh_for_ever_a_browser_asks_each_time(project):
    cache = project.report(timeout=None)
    project.serve("reports/<int:year>/", task_view(cache))
    project.get(REPORT)
    project.run()

    assert project.get(REPORT)["Cache-Control"] == "private, no-cache"


def test_who_has_the_value_is_told_so_and_not_sent_it_again(project, made):
    etag = project.get(REPORT)["ETag"]
    project.advance(5)
    response = project.get(REPORT, **{"if-none-match": etag})

    assert etag.startswith('W/"')
    assert response.status_code == 304
    assert response.content == b""
    assert (response["ETag"], response["Age"]) == (etag, "15")
    assert response["Cache-Control"] == "private, max-age=0"
    assert response["Vary"] == "Accept, Cookie, Accept-Language"


def test_another_value_has_another_etag(project, made):
    before = project.get(REPORT)["ETag"]
    made.invalidate(year=2026)
    project.get(REPORT)
    project.run()
    response = project.get(REPORT, **{"if-none-match": before})

    assert response.status_code == 200
    assert response.json()["run"] == 2
    assert response["ETag"] != before


def test_a_stale_value_is_shown_and_not_to_be_kept(project, made):
    project.advance(600)
    response = project.get(REPORT)

    assert response.status_code == 200
    assert response.json()["run"] == 1
    assert response["Age"] == "610"
    assert response["Cache-Control"] == "private, max-age=0"

    project.run()
    assert project.get(REPORT).json()["run"] == 2


def test_head_says_what_get_would(project, made):
    shown = project.get(REPORT)
    response = project.client.head(REPORT, headers={"accept": "application/json"})

    assert (response.status_code, response.content) == (200, b"")
    assert response["ETag"] == shown["ETag"]


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_a_result_can_only_be_read(project, reports, method):
    response = getattr(project.client, method)(REPORT)

    assert response.status_code == 405
    assert response["Allow"] == "GET, HEAD"
    assert project.waiting() == 0


def test_none_is_a_value(project):
    def nothing(year):
        return None

    project.serve("reports/<int:year>/", task_view(project.cache(nothing)))
    project.get(REPORT)
    project.run()

    assert (project.get(REPORT).status_code, project.get(REPORT).content) == (200, b"null")


# -- what can't be shown


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"%PDF-1.7", "a bytes, can't be sent as JSON"),
        (float("nan"), "a float, can't be sent as JSON"),
    ],
)
def test_a_value_that_json_cannot_take_is_an_error_with_a_remedy(project, value, said):
    def made():
        return value

    project.serve("made/", task_view(project.cache(made)))
    project.get("/made/")
    project.run()
    project.client.raise_request_exception = True

    with pytest.raises(TypeError, match=said) as caught:
        project.get("/made/")
    assert "`render=`" in str(caught.value)


def test_an_encoder_of_ones_own_takes_what_the_usual_one_does_not(project):
    class Encoder(json.JSONEncoder):
        def default(self, value):
            return sorted(value)

    def tags():
        return {"b", "a"}

    project.serve("tags/", task_view(project.cache(tags), encoder=Encoder))
    project.get("/tags/")
    project.run()

    assert project.get("/tags/").json() == ["a", "b"]


def test_dates_and_decimals_are_json_as_elsewhere_in_django(project):
    def money():
        return {"day": date(2026, 11, 22), "sum": Decimal("12.50")}

    project.serve("money/", task_view(project.cache(money)))
    project.get("/money/")
    project.run()

    assert project.get("/money/").json() == {"day": "2026-11-22", "sum": "12.50"}


# -- what goes wrong


@pytest.fixture
def failed(project):
    cache = project.broken(error_timeout=60)
    project.serve("broken/<int:year>/", task_view(cache, label="Sales report"))
    project.get("/broken/2026/")
    project.run()
    return cache


@pytest.mark.parametrize("accept", ["application/json", BROWSER])
def test_a_failure_is_shown_without_a_word_of_what_went_wrong(project, failed, accept):
    response = project.get("/broken/2026/", accept)

    assert response.status_code == 500
    assert response["Cache-Control"] == "no-store"
    assert response["Retry-After"] == "60"
    text = response.content.decode()
    assert not any(word in text for word in (SECRET, "vault", "RuntimeError", "Traceback", "shop.broken"))


def test_a_failure_says_how_things_stand(project, failed):
    assert project.get("/broken/2026/").json() == {
        "status": "failed",
        "progress": None,
        "attempt": 1,
        "retry_after": 60,
        "result_url": "/broken/2026/",
        "status_url": None,
    }


def test_looking_at_a_failure_is_not_another_error(project, failed, caplog):
    project.get("/broken/2026/")

    assert [record for record in caplog.records if record.name == "django.request"] == []


def test_what_could_not_be_sent_is_service_unavailable(project, reports, settings, monkeypatch):
    def publish(*args, **kwargs):
        raise OperationalError(SECRET)

    settings.TASKKIT = {"OUTBOX": "never"}
    monkeypatch.setattr(Producer, "publish", publish)
    response = project.get(REPORT)

    assert response.status_code == 503
    assert response["Retry-After"] == "10"
    assert response["Cache-Control"] == "no-store"
    assert response.json()["status"] == "refused"
    assert "Location" not in response
    assert "vault" not in response.content.decode()


# -- arguments


def test_arguments_may_come_from_anywhere_in_the_request(project):
    cache = project.report()
    project.serve("month/", task_view(cache, arguments=lambda r: {"year": 2026, "month": int(r.GET["month"])}))

    assert project.get("/month/?month=7").status_code == 202
    project.run()
    assert project.get("/month/?month=7").json() == {"year": 2026, "month": 7, "run": 1}


def test_arguments_get_what_the_url_has_captured(project):
    async def arguments(request, year):
        return {"year": year, "month": 12}

    project.serve("reports/<int:year>/", task_view(project.report(), arguments=arguments))
    project.get(REPORT)
    project.run()

    assert project.calls == [(2026, 12)]


@pytest.mark.parametrize("query", ["?month=May", "?month=", "", "?month=1e9", "?month=\ud83d"])
@pytest.mark.parametrize("accept", ["application/json", BROWSER])
def test_what_a_client_sends_is_never_an_error_of_the_server(project, query, accept):
    cache = project.report()
    project.serve("month/", task_view(cache, arguments=lambda r: {"year": 2026, "month": int(r.GET["month"])}))
    response = project.get(f"/month/{query}".encode("utf-8", "surrogatepass").decode("latin-1"), accept)

    assert response.status_code == 400
    assert response["Cache-Control"] == "no-store"
    assert "makes no sense" in response.content.decode()
    assert "invalid literal" not in response.content.decode()
    assert project.waiting() == 0


def test_a_parameter_that_the_task_does_not_take_is_a_bad_request(project, caplog):
    project.serve("month/", task_view(project.report(), arguments=lambda request: request.GET.dict()))

    assert project.get("/month/?year=2026&colour=red").status_code == 400
    assert project.get("/month/").status_code == 400
    assert "no arguments for shop.report: TypeError: shop.report:" in caplog.text
    assert "'colour'" in caplog.text
    assert "'year'" in caplog.text


def test_what_is_wrong_with_the_project_is_an_error_of_the_server(project):
    def arguments(request, year):
        return {"year": year}["month"]

    project.serve("reports/<int:year>/", task_view(project.report(), arguments=arguments))

    assert project.get(REPORT).status_code == 500


def test_an_option_that_does_not_exist_is_an_error_when_the_urls_are_read(project):
    with pytest.raises(TypeError, match="templat_name"):
        task_view(project.report(), templat_name="report.html")


# -- who may


def test_nothing_is_sent_for_somebody_who_may_not(project):
    asked = []

    def authorize(request, arguments):
        asked.append(arguments)
        return request.user.is_staff

    project.serve("reports/<int:year>/", task_view(project.report(), authorize=authorize))

    assert project.get(REPORT).status_code == 403
    assert asked == [{"year": 2026}]
    assert project.waiting() == 0


def test_a_hook_may_be_async(project):
    async def authorize(request, arguments):
        return arguments["year"] == 2026

    project.serve("reports/<int:year>/", task_view(project.report(), authorize=authorize))

    assert project.get(REPORT).status_code == 202
    assert project.get("/reports/2025/").status_code == 403


def test_it_is_a_view_like_any_other(project, django_user_model):
    project.serve("reports/<int:year>/", login_required(task_view(project.report()), login_url="/login/"))

    assert project.get(REPORT).status_code == 302
    project.client.force_login(django_user_model.objects.create_user("ann"))
    assert project.get(REPORT).status_code == 202


# -- JSON or HTML


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/html", "text/html; charset=utf-8"),
        (BROWSER, "text/html; charset=utf-8"),
        ("text/html;q=0.3, application/json;q=0.8", "application/json"),
        ("text/html;q=0.8, application/json;q=0.3", "text/html; charset=utf-8"),
        ("text/*, application/json;q=0.5", "text/html; charset=utf-8"),
    ],
)
def test_who_waits_gets_json_or_a_page_as_the_client_likes(project, accept, content_type):
    cache = project.report()
    project.serve("reports/<int:year>/", task_view(cache, render=lambda request, state: HttpResponse("here")))
    response = project.get(REPORT, accept)

    assert (response.status_code, response["Content-Type"]) == (202, content_type)
    assert response["Vary"].startswith("Accept, Cookie")


@pytest.mark.parametrize("accept", ["image/png", "text/html", "application/json;q=0, image/*"])
def test_who_takes_no_form_of_the_value_is_told_so_and_nothing_is_sent(project, reports, accept):
    response = project.get(REPORT, accept)

    assert response.status_code == 406
    assert "application/json" in response.content.decode()
    assert project.waiting() == 0


def test_a_browser_gets_a_progress_bar_first_and_then_json(project, reports):
    waiting = project.get(REPORT, BROWSER)
    project.run()
    done = project.get(REPORT, BROWSER)

    assert "<progress" in waiting.content.decode()
    assert "<title>Sales report</title>" in waiting.content.decode()
    assert (done.status_code, done["Content-Type"]) == (200, "application/json")


def test_a_label_is_text_and_no_html(project):
    project.serve("reports/<int:year>/", task_view(project.report(), label="<script>alert(1)</script>"))
    text = project.get(REPORT, BROWSER).content.decode()

    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


@pytest.fixture
def page(project):
    """A view with a template for all that may be."""
    text = (
        "{% if state.has_value %}{{ value.run }} of {{ arguments.year }}{% else %}{{ label }}: {{ state.status }}"
        "{% endif %} for {{ request.user }}"
    )
    loaders = [("django.template.loaders.locmem.Loader", {"report.html": text})]
    templates = [{**project_settings.TEMPLATES[0], "APP_DIRS": False}]
    templates[0]["OPTIONS"] = {**templates[0]["OPTIONS"], "loaders": loaders}
    cache = project.report()
    project.serve("reports/<int:year>/", task_view(cache, template_name="report.html", label="Sales"))
    with override_settings(TEMPLATES=templates):
        yield project


def test_a_template_is_the_page_of_every_state(page):
    waiting = page.get(REPORT, BROWSER)
    page.run()
    done = page.get(REPORT, BROWSER)

    assert (waiting.status_code, waiting.content) == (202, b"Sales: pending for AnonymousUser")
    assert (done.status_code, done.content) == (200, b"1 of 2026 for AnonymousUser")
    assert done["Content-Type"] == "text/html; charset=utf-8"
    assert done["Cache-Control"] == "private, max-age=0"


def test_with_a_template_html_is_the_default_and_json_can_be_had(page):
    page.get(REPORT)
    page.run()

    assert page.get(REPORT, "*/*")["Content-Type"] == "text/html; charset=utf-8"
    assert page.get(REPORT, "application/json").json()["run"] == 1


def test_the_same_value_in_another_form_has_another_etag(page, django_user_model):
    page.get(REPORT)
    page.run()
    etag = page.get(REPORT, "text/html")["ETag"]

    assert page.get(REPORT, "text/html", **{"if-none-match": etag}).status_code == 304
    assert page.get(REPORT, "application/json", **{"if-none-match": etag}).status_code == 200
    page.client.force_login(django_user_model.objects.create_user("ann"))
    assert page.get(REPORT, "text/html", **{"if-none-match": etag}).content == b"1 of 2026 for ann"


# -- a file


@pytest.fixture
def opened():
    """The files that responses were made of."""
    return []


@pytest.fixture
def download(project, opened):
    def export(year):
        return f"year,sum\n{year},12\n".encode()

    def render(request, state):
        opened.append(io.BytesIO(state.value))
        return FileResponse(opened[-1], as_attachment=True, filename="export.csv")

    project.serve("export/<int:year>/", task_view(project.cache(export, timeout=60), render=render))
    project.get("/export/2026/")
    project.run()
    return project


@pytest.mark.parametrize("accept", [BROWSER, "text/csv", "*/*"])
def test_a_value_can_be_a_file_to_download(download, accept):
    response = download.get("/export/2026/", accept)

    assert response.status_code == 200
    assert b"".join(response.streaming_content) == b"year,sum\n2026,12\n"
    assert response["Content-Disposition"] == 'attachment; filename="export.csv"'
    assert response["Content-Type"] == "text/csv"
    assert (response["Age"], response["Cache-Control"]) == ("0", "private, max-age=0")


def test_who_has_the_file_does_not_download_it_again(download, opened):
    etag = download.get("/export/2026/")["ETag"]
    response = download.get("/export/2026/", **{"if-none-match": etag})

    assert [file.closed for file in opened] == [False, True]

    assert response.status_code == 304
    assert (response["ETag"], response["Age"]) == (etag, "0")


def test_what_is_rendered_may_say_itself_how_it_is_cached(project):
    def render(request, state):
        return HttpResponse("here", headers={"ETag": '"mine"', "Cache-Control": "no-store"})

    project.serve("reports/<int:year>/", task_view(project.report(), render=render))
    project.get(REPORT)
    project.run()
    response = project.get(REPORT)

    assert (response["ETag"], response["Cache-Control"]) == ('"mine"', "no-store")


def test_a_way_to_somewhere_else_is_not_to_be_kept(project):
    render = lambda request, state: HttpResponseRedirect("https://files.example/signed")  # noqa: E731
    project.serve("reports/<int:year>/", task_view(project.report(), render=render))
    project.get(REPORT)
    project.run()
    response = project.get(REPORT)

    assert response.status_code == 302
    assert "Cache-Control" not in response
    assert "ETag" not in response


# -- the URLs


def test_a_project_without_the_urls_is_told_what_to_do(project):
    project.serve("reports/<int:year>/", task_view(project.report()))
    del project.urls.urlpatterns[0]
    project.client.raise_request_exception = True

    with pytest.raises(ConfigurationError, match=r'include\("django_taskkit.results.urls"\)'):
        project.get(REPORT)


def test_a_project_may_do_without_the_urls(project):
    project.serve("reports/<int:year>/", task_view(project.report(), status_url=None))
    del project.urls.urlpatterns[0]
    response = project.get(REPORT)

    assert response.status_code == 202
    assert response["Retry-After"] == "2"
    assert "Location" not in response
    assert response.json()["status_url"] is None
    assert project.get(REPORT, BROWSER).json()["status"] == "pending"


def test_who_waits_can_be_sent_somewhere_else(project):
    project.serve("reports/<int:year>/", task_view(project.report(), then="/overview/"))

    assert project.get(REPORT).json()["result_url"] == "/overview/"
