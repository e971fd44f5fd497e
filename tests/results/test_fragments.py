"""The progress bar as HTML: what it shows of each state, how it asks again, and when it stops."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory, override_settings
from django.urls import include, path
from django.utils import translation

from django_taskkit.progress import Progress
from django_taskkit.results.bars import LONGEST_PAUSE
from django_taskkit.results.fragments import progress_headers, render_progress
from django_taskkit.results.state import Status, TaskFailure, TaskState
from django_taskkit.results.tokens import read_token
from tests.results.markup import read

urlpatterns = [path("tasks/", include("django_taskkit.results.urls"))]

SECRET = "no route to 10.0.0.7 as hunter2"
WAITING = (Status.PENDING, Status.RUNNING, Status.RETRYING)


@pytest.fixture(autouse=True)
def _urls():
    with override_settings(ROOT_URLCONF=__name__):
        yield


def state(status="running", **facts):
    status = Status(status)
    if status is Status.FAILED:
        facts.setdefault("error", TaskFailure(kind="socket.gaierror", message=SECRET))
    return TaskState(**{"status": status, "task_id": "the-task", **facts})


def at(done, total=100, message=""):
    return state("running", progress=Progress(done=done, total=total, message=message))


def bar(state, url="/report/", headers=None, **options):
    return read(render_progress(state, request=RequestFactory(headers=headers or {}).get(url), **options))


def address(part):
    return part.the(attribute="data-taskkit-url")["data-taskkit-url"]


def answer(part, state, headers=None, **options):
    """What comes when `part` asks again, and the task is in `state` by then."""
    return bar(state, address(part), headers, **options)


def asks(part):
    """Whether anything in `part` would ask again, in any of the three ways."""
    ways = [part.all(attribute=name) for name in ("hx-get", "hx-trigger", "data-taskkit-url", "data-taskkit-every")]
    return [bool(way) for way in ways] + [bool(part.all("meta"))]


# -- what it shows


def test_a_task_that_knows_how_far_it_is_has_a_bar_with_a_value():
    part = bar(at(3, 8, "sheet 3"), label="Sales")
    progress = part.the("progress")

    assert (progress["max"], progress["value"]) == ("100", "37")
    assert part.the(cls="taskkit-percent").text == "37%"
    assert part.the(cls="taskkit-text").text == "sheet 3"


def test_a_task_that_does_not_know_has_a_bar_without_one():
    part = bar(state(progress=Progress(done=5, message="reading")))

    assert "value" not in part.the("progress")
    assert part.all(cls="taskkit-percent") == []


def test_the_bar_is_named_and_described_by_elements_that_are_there():
    part = bar(at(50), label="Sales")
    ids = {element["id"]: element for element in part.all(attribute="id")}
    progress = part.the("progress")

    assert ids[progress["aria-labelledby"]].text == "Sales"
    assert ids[progress["aria-describedby"]].text == "Working"


def test_a_bar_without_a_label_has_a_name_all_the_same():
    assert bar(at(50)).the(cls="taskkit-label").text == "Progress"


def test_what_a_task_says_is_text_and_never_markup():
    part = bar(at(1, 2, "<script>alert(1)</script> & <b>"), label='"><img src=x>')

    assert part.the(cls="taskkit-text").text == "<script>alert(1)</script> & <b>"
    assert part.the(cls="taskkit-label").text == '"><img src=x>'
    assert part.all("script") + part.all("img") + part.all("b") == []


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (state("pending"), "Waiting to start"),
        (state("running"), "Working"),
        (state("retrying"), "It did not work yet and will be tried again."),
        (state("retrying", retry_after=1), "It did not work yet. The next attempt is in 1 second."),
        (state("retrying", retry_after=40), "It did not work yet. The next attempt is in 40 seconds."),
        (state("retrying", retry_after=600), "It did not work yet. The next attempt is in 10\xa0minutes."),
        (state("failed"), "This could not be finished."),
        (
            state("failed", dead_letter="dead"),
            "This could not be finished. It has been put aside, to be looked at and started again.",
        ),
        (state("failed", dead_letter="discarded"), "This could not be finished."),
        (state("lost"), "Nothing has been heard of this for too long."),
        (state("refused"), "This can't be started at the moment."),
        (state("hit", value=1), "Done"),
        (None, "Nothing is known about this any more."),
        (state("absent"), "Nothing is known about this any more."),
    ],
)
def test_each_state_has_its_sentence(shown, text):
    assert bar(shown).the(cls="taskkit-text").text == " ".join(text.split())


@pytest.mark.parametrize("status", ["failed", "refused", "retrying", "lost"])
def test_what_went_wrong_inside_is_never_shown(status):
    error = TaskFailure(kind="socket.gaierror", message=SECRET)
    html = render_progress(state(status, error=error), request=RequestFactory().get("/"))

    assert SECRET not in html
    assert "gaierror" not in html


def test_a_task_that_will_be_tried_again_keeps_its_bar():
    part = bar(state("retrying", retry_after=9, progress=Progress(done=3, total=4, message="row 3")))

    assert part.the("progress")["value"] == "75"
    assert "row 3" not in part.the(cls="taskkit-text").text


@pytest.mark.parametrize("status", ["failed", "lost", "refused", "hit"])
def test_what_is_over_has_no_bar(status):
    assert bar(state(status)).all("progress") == []


@pytest.mark.parametrize("status", ["lost", "refused"])
def test_what_may_work_if_it_is_asked_for_again_has_a_link_to_do_so(status):
    assert bar(state(status)).the("a")["href"] == ""


def test_an_older_value_says_so_while_a_newer_one_is_made():
    part = bar(state("stale", run=Status.RUNNING, value=1, progress=Progress(done=1, total=2)))

    assert part.the("progress")["value"] == "50"
    assert part.the(cls="taskkit-hint").text == "What you see is an older version; a newer one is on its way."
    assert answer(part, at(80)).the(cls="taskkit-hint")


def test_a_newer_version_that_failed_is_told_like_any_failure():
    part = bar(state("stale", run=Status.FAILED, value=1))

    assert part.the(cls="taskkit-text").text == "This could not be finished."
    assert part.all(cls="taskkit-hint") == []
    assert asks(part) == [False] * 5


def test_it_speaks_the_language_of_the_page():
    with translation.override("de"):
        part = bar(state("retrying", retry_after=600))

    assert "10 Minuten" in part.the(cls="taskkit-text").text


# -- how it asks


@pytest.mark.parametrize("status", WAITING, ids=str)
def test_what_is_on_its_way_is_asked_for_by_htmx_and_by_the_script_at_one_address(status):
    part = bar(state(status, retry_after=3), label="Sales", then="/report/", token="the-token")
    now = part.the(cls="taskkit-now")

    assert urlsplit(now["hx-get"]).path == "/tasks/the-token/"
    assert now["hx-get"] == now["data-taskkit-url"]
    assert (now["hx-trigger"], now["data-taskkit-every"]) == ("every 3000ms", "3")
    assert (now["hx-swap"].split()[0], now["hx-target"]) == ("outerHTML", "this")
    assert now["hx-select"] == f"#{now['id']}"


@pytest.mark.parametrize("status", ["failed", "lost", "refused", "hit", "absent"])
def test_what_is_over_asks_no_more(status):
    first = bar(state("pending"))

    assert asks(bar(state(status))) == [False] * 5
    assert asks(answer(first, state(status))) == [False] * 5


def test_what_is_unknown_asks_no_more():
    assert asks(answer(bar(state("pending")), None)) == [False] * 5


def test_without_a_token_the_bar_makes_one_for_this_user_and_this_task():
    class Ann:
        pk, is_authenticated = 7, True

    request = RequestFactory().get("/report/")
    request.user = Ann()
    part = read(
        render_progress(state("pending", cache="shared"), request=request, then="/report/?month=11", label="Sales")
    )
    pointer = read_token(urlsplit(address(part)).path.split("/")[2])

    assert (pointer.alias, pointer.task_id, pointer.user) == ("shared", "the-task", "7")
    assert (pointer.then, pointer.label) == ("/report/?month=11", "Sales")


def test_a_project_without_the_status_view_is_told_what_to_do():
    with override_settings(ROOT_URLCONF="tests.urls"), pytest.raises(ImproperlyConfigured, match=r"include\("):
        bar(state("pending"))


def test_an_answer_goes_on_at_the_address_that_was_asked_wherever_the_project_has_it():
    first = bar(state("pending"), token="the-token")
    moved = address(first).replace("/tasks/", "/vi/jobs/")

    assert address(bar(state("running"), moved)).startswith("/vi/jobs/the-token/?")


def test_the_bars_of_a_page_have_ids_of_their_own():
    ids = [element["id"] for _ in range(50) for element in bar(at(1)).all(attribute="id")]

    assert len(ids) == len(set(ids))


def test_an_answer_has_the_ids_of_the_bar_that_asks():
    first = bar(at(1))
    now = answer(first, at(2)).the(cls="taskkit-now")

    assert now["id"] == first.the(cls="taskkit-now")["id"]
    assert now["hx-select"] == f"#{now['id']}"


@pytest.mark.parametrize("wrong", ["", "x", "ABCDEF01", "12345678<", "0123456789", "../../12"])
def test_a_name_that_is_none_of_ours_makes_a_new_bar(wrong):
    part = bar(at(1), f"/tasks/t/?fragment=1&bar={wrong}")

    assert re.fullmatch("taskkit-[0-9a-f]{8}", part.the(cls="taskkit-progress")["id"])


@pytest.mark.parametrize(("said", "every"), [("<b>", "nan"), ("x" * 50, "inf"), ("", "-1"), ("running-9", "soon")])
def test_nonsense_in_a_poll_is_left_out(said, every):
    now = bar(at(1), f"/tasks/t/?fragment=1&bar=0123abcd&said={said}&every={every}").the(cls="taskkit-now")
    query = parse_qs(urlsplit(now["hx-get"]).query)

    assert query["said"] == ["running-0"]
    assert 0.2 <= float(now["data-taskkit-every"]) <= 3600


def test_it_asks_as_often_as_the_state_says_but_does_not_sleep_through_a_long_wait():
    assert bar(state("running", retry_after=5)).the(cls="taskkit-now")["hx-trigger"] == "every 5000ms"
    assert bar(state("running")).the(cls="taskkit-now")["hx-trigger"] == "every 2000ms"
    late = bar(state("retrying", retry_after=3000)).the(cls="taskkit-now")
    assert late["data-taskkit-every"] == str(LONGEST_PAUSE)


def test_how_often_the_page_wants_it_goes_from_poll_to_poll():
    part = answer(bar(state("pending"), poll_every=0.5), at(1))

    assert answer(part, at(2)).the(cls="taskkit-now")["hx-trigger"] == "every 500ms"


# -- without JavaScript


def test_a_browser_without_javascript_loads_the_page_again():
    meta = bar(state("running", retry_after=5)).the("noscript").the("meta")

    assert (meta["http-equiv"], meta["content"]) == ("refresh", "5")


def test_it_does_not_do_so_faster_than_anybody_can_read():
    assert bar(state("running"), poll_every=0.2).the("meta")["content"] == "2"


@pytest.mark.parametrize("headers", [{"HX-Request": "true"}, {"Sec-Fetch-Dest": "empty"}], ids=str)
def test_what_a_script_puts_into_a_page_does_not_reload_it(headers):
    """A parser without scripting, such as htmx uses, makes elements of what is in a <noscript>."""
    assert bar(state("running"), headers=headers).all("meta") == []


def test_no_answer_to_a_poll_reloads_the_page():
    assert answer(bar(state("pending")), at(3)).all("noscript") == []


# -- where it goes


def test_when_the_task_is_done_the_answer_says_where_to_go():
    first = bar(state("running"), then="/report/?month=11")
    done = state("hit", value=1)
    last = answer(first, done, then="/report/?month=11")

    assert last.the(cls="taskkit-now")["data-taskkit-go"] == "/report/?month=11"
    assert last.the("a")["href"] == "/report/?month=11"


def test_a_new_bar_of_a_task_that_is_done_goes_nowhere():
    part = bar(state("hit", value=1), then="/report/")

    assert part.all(attribute="data-taskkit-go") == []
    assert part.the("a").text == "Show the result"


@pytest.mark.parametrize("status", ["failed", "lost", "refused", "running"])
def test_what_is_not_done_goes_nowhere(status):
    first = bar(state("running"), then="/report/")

    assert answer(first, state(status), then="/report/").all(attribute="data-taskkit-go") == []


@pytest.mark.parametrize("then", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", ""])
def test_nobody_is_sent_to_another_host(then):
    first = bar(state("running"))
    request = RequestFactory(headers={"HX-Request": "true"}).get(address(first) + "&last=1")
    done = state("hit", value=1)
    last = read(render_progress(done, request=request, then=then))

    assert last.all(attribute="data-taskkit-go") + last.all("a") == []
    assert progress_headers(done, request=request, then=then) == {}


def test_htmx_gets_the_last_part_first_and_that_asks_once_to_be_sent_on():
    """What HX-Redirect comes with is not put into the page: a bar that polls would ask, and be sent, again."""
    htmx, done = {"HX-Request": "true"}, state("hit", value=1)
    first = bar(state("running"), then="/report/")
    last = answer(first, done, htmx, then="/report/").the(cls="taskkit-now")

    assert (last["hx-trigger"], last["hx-target"]) == ("load", "this")
    assert "data-taskkit-go" not in last
    sent = RequestFactory(headers=htmx).get(last["hx-get"])
    assert progress_headers(done, request=sent, then="/report/") == {"HX-Redirect": "/report/"}
    assert asks(read(render_progress(done, request=sent, then="/report/"))) == [False] * 5


def test_nobody_else_is_sent_by_a_header():
    first = bar(state("running"), then="/report/")
    done, htmx = state("hit", value=1), RequestFactory(headers={"HX-Request": "true"})
    last = address(first) + "&last=1"

    assert progress_headers(done, request=htmx.get(address(first)), then="/report/") == {}
    assert progress_headers(at(99), request=htmx.get(last), then="/report/") == {}
    assert progress_headers(done, request=RequestFactory().get(last), then="/report/") == {}
    assert progress_headers(done, request=htmx.get("/report/?last=1"), then="/report/") == {}


def test_a_value_that_is_gone_again_by_then_is_waited_for():
    htmx = {"HX-Request": "true"}
    last = answer(bar(state("running")), state("hit"), htmx, then="/report/").the(cls="taskkit-now")

    assert asks(bar(at(5), last["hx-get"], htmx, then="/report/"))[:2] == [True, True]


# -- what a screen reader hears


def spoken(states):
    """What is said of states that a bar comes to, one after the other."""
    part, told = bar(states[0], label="Sales"), []
    for following in states[1:]:
        part = answer(part, following, label="Sales")
        told += [element.text for element in part.all(cls="taskkit-said")]
        if not part.all(attribute="data-taskkit-url"):
            break
    return told


def test_a_bar_brings_a_polite_live_region_that_is_empty_and_outside_of_what_is_replaced():
    part = bar(at(50))
    said = part.the(cls="taskkit-said")

    assert (said["role"], said.text) == ("status", "")
    assert said.parent is part.the(cls="taskkit-progress")


def test_it_is_filled_and_never_replaced():
    said = answer(bar(state("pending")), at(1)).the(cls="taskkit-said")

    assert said["hx-swap-oob"] == "innerHTML"


def test_of_a_hundred_steps_four_are_said_and_the_end():
    states = [state("pending"), *(at(done, message=f"row {done}") for done in range(101)), state("hit", value=1)]

    assert spoken(states) == ["Sales: 0%", "Sales: 25%", "Sales: 50%", "Sales: 75%", "Sales: 100%", "Sales: Done"]


def test_a_task_that_does_not_know_how_far_it_is_is_said_once():
    assert spoken([state("pending"), *(state(progress=Progress(message=f"row {n}")) for n in range(9))]) == [
        "Sales: Working"
    ]


def test_a_retry_is_said_once_and_so_is_that_it_runs_again():
    waits = [state("retrying", retry_after=left) for left in (9, 6, 3)]

    assert spoken([at(30), *waits, at(30), state("failed")]) == [
        "Sales: It did not work yet. The next attempt is in 9 seconds.",
        "Sales: 25%",
        "Sales: This could not be finished.",
    ]
