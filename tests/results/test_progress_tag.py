"""``{% task_progress %}`` in a template: where it goes, what it leaves out, and what it refuses."""

from urllib.parse import urlsplit

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.shortcuts import render
from django.template import Context, RequestContext, Template
from django.test import RequestFactory, override_settings
from django.urls import include, path

from django_taskkit.results import ResultCache
from django_taskkit.results.state import Status, TaskState
from django_taskkit.results.tokens import read_token
from tests.results.markup import read

urlpatterns = [path("tasks/", include("django_taskkit.results.urls"))]


@pytest.fixture(autouse=True)
def _project():
    backend = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "progress-tag"}
    with override_settings(ROOT_URLCONF=__name__, CACHES={"default": backend}):
        yield


def state(status="running", **facts):
    return TaskState(**{"status": Status(status), "task_id": "the-task", **facts})


def show(state, arguments="", *, request=None, **names):
    request = request or RequestFactory().get("/report/?month=11")
    template = Template(f"{{% load taskkit %}}{{% task_progress state {arguments} %}}")
    return read(template.render(RequestContext(request, {"state": state, **names})))


def pointer(part):
    return read_token(urlsplit(part.the(attribute="hx-get")["hx-get"]).path.split("/")[2])


# -- what it shows


@pytest.mark.parametrize("status", ["pending", "running", "retrying", "failed", "lost", "refused"])
def test_where_there_is_no_value_there_is_a_bar(status):
    assert show(state(status)).the(cls="taskkit-progress")


@pytest.mark.parametrize("shown", [state("hit"), state("stale", run=Status.RUNNING), state("absent")], ids=str)
def test_where_the_page_has_its_value_or_nobody_asked_there_is_nothing(shown):
    assert list(show(shown)) == []


@pytest.mark.parametrize("then", ["stay", "/download/"])
def test_where_the_value_is_elsewhere_it_says_that_it_is_done(then):
    assert show(state("hit"), f'then="{then}"').the(cls="taskkit-text").text == "Done"


def test_that_a_value_is_being_renewed_is_shown_if_the_page_wants_it():
    assert show(state("stale", run=Status.PENDING), "stale=True").the(cls="taskkit-hint")
    assert list(show(state("stale", run=None), "stale=True")) == []


def test_label_and_interval_are_those_of_the_page():
    part = show(state(), "label=title poll_every=5", title="Báo cáo & <b>")

    assert part.the(cls="taskkit-label").text == "Báo cáo & <b>"
    assert part.the(attribute="hx-trigger")["hx-trigger"] == "every 5000ms"
    assert pointer(part).label == "Báo cáo & <b>"


def test_two_bars_of_a_page_have_ids_of_their_own():
    template = Template("{% load taskkit %}{% task_progress a %}{% task_progress b %}{% task_progress a %}")
    request = RequestFactory().get("/")
    html = template.render(RequestContext(request, {"a": state(), "b": state("pending")}))
    ids = [element["id"] for element in read(html).all(attribute="id")]

    assert len(ids) == len(set(ids)) == 15


def test_the_request_of_render_is_enough(tmp_path):
    (tmp_path / "page.html").write_text("{% load taskkit %}{% task_progress state %}")
    plain = {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "DIRS": [tmp_path]}
    with override_settings(TEMPLATES=[plain]):
        response = render(RequestFactory().get("/"), "page.html", {"state": state()})

    assert read(response.text if hasattr(response, "text") else response.content.decode()).the("progress")


# -- where it goes


def test_when_the_task_is_done_it_goes_to_the_page_itself():
    assert pointer(show(state())).then == "/report/?month=11"


def test_a_page_that_was_posted_is_asked_for_and_not_posted_again():
    assert pointer(show(state(), request=RequestFactory().post("/report/"))).then == "/report/"


def test_or_where_the_page_says():
    assert pointer(show(state(), "then=there", there="/download/7/")).then == "/download/7/"
    assert pointer(show(state(), 'then="http://testserver/download/"')).then == "http://testserver/download/"


def test_or_nowhere():
    assert pointer(show(state(), 'then="stay"')).then == ""


@pytest.mark.parametrize("then", ["https://evil.example/x", "//evil.example", "javascript:alert(1)"])
def test_another_host_is_refused(then):
    with pytest.raises(ValueError, match=r"which is not on testserver; give a URL of this site"):
        show(state(), "then=there", there=then)


@pytest.mark.parametrize(
    ("headers", "target"),
    [
        ({"HX-Request": "true", "HX-Current-URL": "http://testserver/page/?a=1#top"}, "/page/?a=1"),
        ({"HX-Request": "true", "HX-Current-URL": "https://evil.example/page/"}, "/part/"),
        ({"HX-Request": "true", "HX-Boosted": "true", "HX-Current-URL": "http://testserver/before/"}, "/part/"),
        ({"Sec-Fetch-Dest": "empty", "Referer": "http://testserver/page/"}, "/page/"),
        ({"Sec-Fetch-Dest": "document", "Referer": "http://testserver/before/"}, "/part/"),
        ({}, "/part/"),
    ],
    ids=str,
)
def test_a_part_that_a_script_put_into_a_page_goes_to_that_page(headers, target):
    request = RequestFactory(headers=headers).get("/part/")

    assert pointer(show(state(), request=request)).then == target


def test_a_page_that_says_wait_for_a_task_that_is_done_is_not_loaded_again_and_again(station):
    @station.app.task(name="shop.tasks.report")
    def report():
        return 42

    cached = ResultCache(report)
    old = cached.get_or_dispatch()
    assert show(old).the("progress")
    station.run_all()
    assert cached.peek().value == 42
    part = show(state(task_id=old.task_id, cache=old.cache))

    assert part.all(attribute="hx-get") + part.all("meta") + part.all(attribute="data-taskkit-go") == []
    assert part.the("a")["href"] == "/report/?month=11"


# -- what it refuses


@pytest.mark.parametrize("wrong", [None, "", "running", {"status": "running"}, 42], ids=repr)
def test_what_is_no_state_is_refused(wrong):
    with pytest.raises(TypeError, match=r"give it what ResultCache.get_or_dispatch\(\) has returned"):
        show(wrong)


@pytest.mark.parametrize("wrong", [0, -1, 0.01, 4000, "soon", True, float("nan"), float("inf")], ids=repr)
def test_an_interval_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=r"poll_every is .*; give seconds, 0.2 to 3600"):
        show(state(), "poll_every=wrong", wrong=wrong)


def test_a_context_without_a_request_is_refused():
    with pytest.raises(ImproperlyConfigured, match=r"needs the request in the template's context"):
        Template("{% load taskkit %}{% task_progress state %}").render(Context({"state": state()}))


def test_a_project_without_the_status_view_is_told_what_to_do():
    with override_settings(ROOT_URLCONF="tests.urls"), pytest.raises(ImproperlyConfigured, match="taskkit:status"):
        show(state())


# -- style sheet and script


def media(**context):
    return read(Template("{% load taskkit %}{% task_progress_media %}").render(Context(context)))


def test_style_sheet_and_script_are_files_of_the_site():
    tree = media()

    assert tree.the("link").attributes == {"rel": "stylesheet", "href": "/static/django_taskkit/progress.css"}
    assert tree.the("script").attributes == {"src": "/static/django_taskkit/progress.js", "defer": None}


def test_with_a_nonce_both_carry_it():
    request = RequestFactory().get("/")
    request.csp_nonce = "of-django-csp"

    assert {element["nonce"] for element in media(csp_nonce="of-django")} == {"of-django"}
    assert {element["nonce"] for element in media(request=request)} == {"of-django-csp"}


TWO = "{% task_progress state %}{% task_progress state %}"


@pytest.mark.parametrize("page", [TWO, "{% task_progress_media %}" + TWO], ids=["by the first bar", "by the page"])
def test_they_are_on_a_page_once_however_it_asks_for_them(page):
    context = RequestContext(RequestFactory().get("/report/"), {"state": state()})
    tree = read(Template("{% load taskkit %}" + page).render(context))

    assert [element.tag for element in tree if element.tag in ("link", "script")] == ["link", "script"]


@pytest.mark.parametrize("headers", [{"HX-Request": "true"}, {"Sec-Fetch-Dest": "empty"}], ids=str)
def test_a_part_of_a_page_does_not_bring_them_along(headers):
    tree = show(state(), request=RequestFactory().get("/part/", headers=headers))

    assert not [element for element in tree if element.tag in ("link", "script")]
