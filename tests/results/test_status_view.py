"""How a task stands, for whoever has its token: what is told, to whom, and what never is."""

import html
import re

import pytest
from django.core.cache import caches
from django.urls import include, path
from django.utils import translation

from django_taskkit.dlq import requeue
from django_taskkit.models import DeadLetter
from django_taskkit.progress import set_progress
from django_taskkit.results.tokens import make_token
from django_taskkit.results.views import TaskStatusView, task_view
from tests.results.web import BROWSER, SECRET, a_project  # noqa: F401

REPORT = "/reports/2026/"
HTMX = {"HX-Request": "true"}


@pytest.fixture
def reports(project):
    cache = project.report(timeout=600)
    project.serve("reports/<int:year>/", task_view(cache, label="Sales report"))
    return cache


@pytest.fixture
def status(project, reports):
    """The address where one asks for the report."""
    return project.get(REPORT)["Location"]


@pytest.fixture
def within(project):
    """Have a task of a view ask, while it runs, how it stands; returns the answers."""

    def within(say, *requests):
        answers = []

        def slow():
            say()
            answers.extend(project.get(url, **headers) for url, headers in requests)

        cache = project.cache(slow)
        project.serve("slow/", task_view(cache, label="Slow"))
        url = project.get("/slow/")["Location"]
        requests = [(url + query, headers) for query, headers in requests]
        project.run()
        return answers

    return within


# -- JSON


def test_what_waits_is_told_as_json(project, status):
    response = project.get(status)

    assert response.status_code == 200
    assert (response["Cache-Control"], response["Retry-After"]) == ("no-store", "2")
    assert response.json() == {
        "status": "pending",
        "progress": None,
        "attempt": 0,
        "retry_after": 2,
        "result_url": REPORT,
    }


def test_a_task_that_runs_says_how_far_it_is(within):
    (answer,) = within(lambda: set_progress(30, 120, "Reading orders"), ("", {}))

    assert answer.json() == {
        "status": "running",
        "progress": {"done": 30, "total": 120, "percent": 25, "message": "Reading orders"},
        "attempt": 1,
        "retry_after": 2,
        "result_url": "/slow/",
    }


def test_a_task_that_does_not_know_how_much_there_is_has_no_percentage(within):
    (answer,) = within(lambda: set_progress(30), ("", {}))

    assert answer.json()["progress"] == {"done": 30, "total": None, "percent": None, "message": ""}


def test_what_is_done_is_told_without_the_value(project, status):
    project.run()
    response = project.get(status)

    assert response.status_code == 200
    assert response.json()["status"] == "hit"
    assert response.json()["result_url"] == REPORT
    assert "2026" not in response.content.decode().replace(REPORT, "")
    assert "Retry-After" not in response


@pytest.fixture
def failed(project):
    """The address where one asks for what has failed."""
    project.serve("broken/<int:year>/", task_view(project.broken()))
    url = project.get("/broken/2026/")["Location"]
    project.run()
    return url


@pytest.mark.parametrize("query", ["", "?fragment=1"])
@pytest.mark.parametrize("accept", ["application/json", BROWSER])
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_of_a_failure_nobody_is_told_why(project, failed, query, accept, headers):
    response = project.get(failed + query, accept, **headers)

    assert response.status_code == 200
    text = response.content.decode()
    assert "failed" in text
    assert not any(word in text for word in (SECRET, "vault", "RuntimeError", "Traceback", "shop.broken"))


def test_a_failure_that_an_operator_has_requeued_goes_on(project, failed):
    assert project.get(failed).json()["status"] == "failed"

    requeue(DeadLetter.objects.all())

    assert project.get(failed).json()["status"] == "pending"


def test_what_was_invalidated_is_known_no_more(project, reports, status):
    project.run()
    reports.invalidate(year=2026)
    response = project.get(status)

    assert response.status_code == 404
    assert response.json()["status"] == "absent"
    assert response.json()["result_url"] == REPORT


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options"])
def test_the_status_can_only_be_read(project, status, method):
    response = getattr(project.client, method)(status)

    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")


def test_head_says_what_get_would(project, status):
    response = project.client.head(status)

    assert (response.status_code, response.content, response["Retry-After"]) == (200, b"", "2")


def test_who_takes_neither_json_nor_html_is_told_so(project, status):
    assert project.get(status, "image/png").status_code == 406


def test_a_cache_out_of_reach_is_service_unavailable(project, status, monkeypatch, caplog):
    def get(self, *args, **kwargs):
        raise ConnectionError(SECRET)

    monkeypatch.setattr(type(caches["default"]), "get", get)
    for headers in ({}, HTMX):
        response = project.get(status, **headers)
        assert (response.status_code, response["Retry-After"]) == (503, "5")
        assert "vault" not in response.content.decode()
    assert [record for record in caplog.records if record.name == "django.request"] == []


# -- the page


def test_a_browser_gets_a_page_with_a_progress_bar(project, status):
    response = project.get(status, BROWSER)
    text = response.content.decode()

    assert response.status_code == 200
    assert response["Content-Type"] == "text/html; charset=utf-8"
    assert response["Cache-Control"] == "no-store"
    assert '<html lang="en">' in text
    assert "<title>Sales report</title>" in text
    assert "<progress" in text


def test_the_page_is_in_the_language_of_the_visitor(project, status):
    text = project.get(status, BROWSER, **{"accept-language": "vi"}).content.decode()

    assert '<html lang="vi">' in text


def test_a_browser_goes_to_the_result_when_it_is_there(project, status):
    project.run()
    response = project.get(status, BROWSER)

    assert (response.status_code, response["Location"]) == (303, REPORT)
    assert response["Cache-Control"] == "no-store"


def test_a_browser_goes_and_asks_again_for_what_is_known_no_more(project, reports, status):
    project.run()
    reports.invalidate(year=2026)

    assert project.get(status, BROWSER).status_code == 303
    assert project.get(REPORT, BROWSER).status_code == 202


def test_a_browser_that_has_nowhere_to_go_stays(project, reports):
    state = reports.get_or_dispatch(2026)
    token = make_token(alias=state.cache, task_id=state.task_id)
    project.run()
    response = project.get(f"/tasks/{token}/", BROWSER)

    assert response.status_code == 200
    assert "<progress" not in response.content.decode()
    assert "Done" in response.content.decode()


@pytest.mark.parametrize(
    "then",
    [
        "https://evil.example/",
        "//evil.example/",
        "///evil.example/",
        "/\\evil.example/",
        "javascript:alert(1)",
        "http:evil.example",
        "https://testserver@evil.example/",
        "\x00//evil.example",
    ],
)
def test_nobody_is_ever_sent_to_another_site(project, reports, then):
    state = reports.get_or_dispatch(2026)
    url = f"/tasks/{make_token(alias=state.cache, task_id=state.task_id, then=then)}/"
    answers = [project.get(url), project.get(url, BROWSER)]
    project.run()
    answers += [project.get(url, accept, **more) for accept in ("application/json", BROWSER) for more in ({}, HTMX)]
    answers.append(project.get(f"{url}?fragment=1&bar=0a1b2c3d&said=pending", **HTMX))

    for answer in answers:
        assert answer.status_code == 200
        assert "evil" not in answer.content.decode()
        assert "alert(1)" not in answer.content.decode()
        assert not {"Location", "HX-Redirect", "HX-Location"} & set(answer.headers)


# -- the part of a page


def test_a_script_gets_only_the_part_that_changes(project, status):
    for answer in (project.get(f"{status}?fragment=1"), project.get(status, **HTMX)):
        assert answer.status_code == 200
        assert answer["Content-Type"] == "text/html; charset=utf-8"
        assert answer["Retry-After"] == "2"
        assert "HX-Request" in answer["Vary"]
        assert "<progress" in answer.content.decode()
        assert "<html" not in answer.content.decode()


def next_of(answer):
    """The address that the part asks next; None if it asks no more."""
    found = re.search(r'hx-get="([^"]+)"', answer.content.decode())
    return found and html.unescape(found[1])


def polls(answer):
    """Whether the part asks again and again."""
    return 'hx-trigger="every' in answer.content.decode()


def test_the_last_part_asks_for_no_other(project, status):
    poll = next_of(project.get(status, BROWSER))
    waiting = project.get(poll, **HTMX)
    project.run()
    done = project.get(poll, **HTMX)

    assert polls(waiting)
    assert not polls(done)
    assert "Done" in done.content.decode()


def test_htmx_goes_to_the_result_once(project, status):
    poll = next_of(project.get(status, BROWSER))
    project.run()
    done = project.get(poll, **HTMX)
    last = project.get(next_of(done), **HTMX)

    assert "HX-Redirect" not in done  # with it htmx shows nothing, and what it has shows polls on
    assert last["HX-Redirect"] == REPORT


def test_htmx_stops_asking_for_what_it_may_not_see(project, status):
    """It shows nothing of an error, and would ask for ever."""
    for url in ("/tasks/forged/", "/tasks/forged/?fragment=1&bar=0a1b2c3d&said=pending"):
        answer = project.get(url, **HTMX)
        assert answer.status_code == 200
        assert not polls(answer)
    assert project.get("/tasks/forged/?fragment=1").status_code == 404


def test_what_a_task_says_is_text_and_no_html(within):
    said = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
    answers = within(
        lambda: set_progress(1, 2, said),
        ("", {}),
        ("", {"accept": BROWSER}),
        ("?fragment=1", {}),
        ("", HTMX),
    )

    assert answers[0].json()["progress"]["message"] == said
    assert answers[0]["Content-Type"] == "application/json"
    for answer in answers[1:]:
        text = answer.content.decode()
        assert "<script>alert" not in text
        assert "<img" not in text
        assert "&lt;img" in text


def test_a_label_is_text_and_no_html(project, reports):
    state = reports.get_or_dispatch(2026)
    token = make_token(alias=state.cache, task_id=state.task_id, label='"><script>alert(1)</script>')
    for headers in ({}, HTMX):
        text = project.get(f"/tasks/{token}/", BROWSER, **headers).content.decode()
        assert "<script>alert" not in text
        assert "&lt;script&gt;" in text


# -- who may know


@pytest.mark.parametrize("accept", ["application/json", BROWSER])
def test_a_forged_token_is_not_found(project, status, accept):
    forged = status[:-2] + ("A" if status[-2] != "A" else "B") + "/"
    response = project.get(forged, accept)

    assert response.status_code == 404
    assert response["Cache-Control"] == "no-store"
    assert "There is no such task" in response.content.decode()


@pytest.mark.parametrize("accept", ["application/json", BROWSER])
def test_a_token_expires(project, status, accept):
    project.advance(86_401)
    response = project.get(status, accept)

    assert response.status_code == 410
    assert "expired" in response.content.decode()


def test_a_task_id_is_no_token(project, reports):
    state = reports.get_or_dispatch(2026)

    assert project.get(f"/tasks/{state.task_id}/").status_code == 404


@pytest.fixture
def ann(django_user_model):
    return django_user_model.objects.create_user("ann")


@pytest.fixture
def bob(django_user_model):
    return django_user_model.objects.create_user("bob")


@pytest.mark.parametrize("accept", ["application/json", BROWSER])
def test_a_token_that_was_made_for_a_user_is_good_for_nobody_else(project, reports, ann, bob, client, accept):
    client.force_login(ann)
    status = project.get(REPORT, client=client)["Location"]

    assert project.get(status, accept, client=client).status_code == 200
    others = [project.get(status, accept)]
    client.force_login(bob)
    others.append(project.get(status, accept, client=client))
    forged = project.get("/tasks/forged/", accept)
    for other in others:
        assert other.status_code == 404
        assert other.content == forged.content


def test_a_token_that_was_made_for_nobody_is_good_for_whoever_has_it(project, status, ann):
    project.client.force_login(ann)

    assert project.get(status).status_code == 200


def test_a_project_may_decide_who_is_told(project, reports, ann):
    asked = []

    def authorize(request, state, pointer):
        asked.append((str(state.status), pointer.label))
        return request.user.is_authenticated

    project.serve("mine/<str:token>/", TaskStatusView.as_view(authorize=authorize), name="mine")
    project.serve("own/<int:year>/", task_view(reports, label="Sales", status_url="mine"))
    status = project.get("/own/2026/")["Location"]

    assert status.startswith("/mine/")
    assert next_of(project.get("/own/2026/", BROWSER)).startswith("/mine/")
    assert project.get(status).status_code == 404
    project.client.force_login(ann)
    assert project.get("/own/2026/").status_code == 202
    assert project.get(status).status_code == 200
    assert asked == [("pending", "Sales")] * 2


def test_views_of_a_project_may_take_the_place_of_those_of_the_package(project, reports):
    own = [path("<str:token>/", TaskStatusView.as_view(authorize=lambda *args: False), name="status")]
    project.urls.urlpatterns[0] = path("own/", include((own, "taskkit")))
    answer = project.get(REPORT, BROWSER)

    assert answer["Location"].startswith("/own/")
    assert next_of(answer).startswith("/own/")
    assert project.get(answer["Location"]).status_code == 404


def test_a_project_can_not_give_away_what_is_for_another_user(project, reports, ann, bob, client):
    project.serve("all/<str:token>/", TaskStatusView.as_view(authorize=lambda *args: True), name="all")
    project.serve("own/<int:year>/", task_view(reports, status_url="all"))
    client.force_login(ann)
    status = project.get("/own/2026/", client=client)["Location"]

    client.force_login(bob)
    assert project.get(status, client=client).status_code == 404


def test_who_may_know_can_be_said_in_a_subclass_and_async(project, reports):
    class Nobody(TaskStatusView):
        async def authorize(self, request, state, pointer):
            return False

    project.urls.urlpatterns = [path("tasks/<str:token>/", Nobody.as_view(), name="nobody")]
    state = reports.get_or_dispatch(2026)

    assert project.get(f"/tasks/{make_token(alias='default', task_id=state.task_id)}/").status_code == 404


def test_a_token_may_be_good_for_less_than_a_day(project, reports):
    project.serve("short/<str:token>/", TaskStatusView.as_view(max_age=60))
    token = make_token(alias="default", task_id=reports.get_or_dispatch(2026).task_id)

    assert project.get(f"/short/{token}/").status_code == 200
    project.advance(61)
    assert project.get(f"/short/{token}/").status_code == 410


def test_what_is_said_to_those_who_may_not_know_can_be_translated(project):
    with translation.override("vi"):
        assert project.get("/tasks/forged/").json()["detail"]
