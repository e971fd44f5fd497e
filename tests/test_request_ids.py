"""The id of a web request is on its response, its log lines, and on every task that follows from it."""

import asyncio
import re

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from celery import chain, chord, group
from django.db import transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.dlq import requeue
from django_taskkit.models import DeadLetter, OutboxMessage
from django_taskkit.observability.middleware import RequestIDMiddleware
from django_taskkit.outbox.relay import Relay
from django_taskkit.request_ids import current_request_id, of_request

MIDDLEWARE = ["django_taskkit.observability.middleware.RequestIDMiddleware"]
HEADER = "X-Request-ID"

pytestmark = pytest.mark.django_db

begin = []
"""What the views run, set by a test."""


def view(request):
    for action in begin:
        action()
    return HttpResponse(f"{request.request_id} {current_request_id()}")


async def async_view(request):
    for action in begin:
        await sync_to_async(action)()
    await asyncio.sleep(0)
    return HttpResponse(f"{request.request_id} {current_request_id()}")


def fails(request):
    raise LookupError("no")


def streams(request):
    def parts():
        for _ in range(2):
            yield f"{current_request_id()} "

    return StreamingHttpResponse(parts())


async def streams_async(request):
    async def parts():
        for _ in range(2):
            yield f"{current_request_id()} "
            await asyncio.sleep(0)

    return StreamingHttpResponse(parts())


urlpatterns = [
    path("view", view),
    path("async", async_view),
    path("fails", fails),
    path("streams", streams),
    path("streams-async", streams_async),
]


@pytest.fixture(autouse=True)
def as_a_site():
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=MIDDLEWARE):
        yield
    begin.clear()
    assert of_request.get() == ""


@pytest.fixture
def web():
    return Client(raise_request_exception=False)


def get(web, url="/view", request_id="req-1"):
    return web.get(url, headers={HEADER: request_id} if request_id else {})


# The middleware


def test_an_id_that_came_is_taken_and_given_back(web):
    response = get(web)

    assert response.content == b"req-1 req-1"
    assert response[HEADER] == "req-1"


@pytest.mark.parametrize(
    "request_id", ["a", "A" * 128, "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "1-5759e988:a.b/c=@~+_"]
)
def test_ids_of_all_kinds_of_proxies_are_taken(web, request_id):
    assert get(web, request_id=request_id)[HEADER] == request_id


@pytest.mark.parametrize("request_id", [None, "A" * 129, "a b", "a\tb", 'a"b', "a<b>", "é", "-", "a,b", "{}", "a;b"])
def test_another_is_made_where_there_is_none_or_one_that_could_do_harm(web, request_id):
    response = get(web, request_id=request_id)

    assert re.fullmatch(r"[0-9a-f]{32}", response[HEADER])
    assert response.content == f"{response[HEADER]} {response[HEADER]}".encode()


def test_every_request_has_its_own(web):
    assert get(web, request_id=None)[HEADER] != get(web, request_id=None)[HEADER]


def test_a_request_that_fails_has_it_too_and_leaves_nothing_behind(web):
    response = get(web, "/fails")

    assert response.status_code == 500
    assert response[HEADER] == "req-1"
    assert of_request.get() == ""


def test_an_error_that_passes_the_middleware_leaves_nothing_behind(rf):
    def broken(request):
        raise LookupError("no")

    with pytest.raises(LookupError):
        RequestIDMiddleware(broken)(rf.get("/"))
    assert of_request.get() == ""


@pytest.mark.parametrize("url", ["/view", "/async"])
def test_async_django_serves_it_as_well(url):
    async def ask():
        return await AsyncClient().get(url, headers={HEADER: "req-1"})

    response = async_to_sync(ask)()
    assert response.content == b"req-1 req-1"
    assert response[HEADER] == "req-1"


def test_requests_that_are_served_at_once_do_not_mix():
    async def ask():
        clients = [AsyncClient().get("/async", headers={HEADER: f"req-{number}"}) for number in range(20)]
        return await asyncio.gather(*clients)

    responses = async_to_sync(ask)()
    assert [response.content for response in responses] == [
        f"req-{number} req-{number}".encode() for number in range(20)
    ]


def test_the_parts_of_a_streamed_response_are_made_under_the_id(web):
    response = get(web, "/streams")
    parts = iter(response.streaming_content)

    assert next(parts) == b"req-1 "
    assert of_request.get() == ""
    assert b"".join(parts) == b"req-1 "


def test_those_of_an_asynchronous_one_too():
    async def ask():
        response = await AsyncClient().get("/streams-async", headers={HEADER: "req-1"})
        return [part async for part in response.streaming_content]

    assert async_to_sync(ask)() == [b"req-1 ", b"req-1 "]


def test_it_takes_no_part_in_a_file_response(web, tmp_path, rf):
    from django.http import FileResponse

    (tmp_path / "file").write_bytes(b"content")
    answered = FileResponse((tmp_path / "file").open("rb"))
    file = answered.file_to_stream

    response = RequestIDMiddleware(lambda request: answered)(rf.get("/"))
    assert response.file_to_stream is file
    assert b"".join(response.streaming_content) == b"content"
    response.close()


# The tasks


@pytest.fixture
def seen(station):
    """Task and id of every run."""
    return []


@pytest.fixture
def note(station, seen):
    @station.app.task(name="tests.note", bind=True, base=BaseTaskWithRetry, retry_backoff=1, retry_jitter=False)
    def note(self, name="note", fail=0, then=()):
        seen.append((name, self.request.retries, current_request_id()))
        for follower in then:
            self.app.tasks["tests.note"].delay(follower)
        if self.request.retries < fail:
            raise ConnectionError("not yet")
        return name

    return note


def start(web, *actions):
    begin.extend(actions)
    get(web)


def test_a_task_that_is_started_in_a_request_has_its_id(station, note, seen, web):
    start(web, note.delay)
    station.run_all()

    assert seen == [("note", 0, "req-1")]


def test_a_task_that_nobody_asked_for_has_none(station, note, seen):
    note.delay()
    station.run_all()

    assert seen == [("note", 0, "")]


def test_what_tasks_start_has_it_too_and_the_next_task_has_its_own(station, note, seen, web):
    start(web, lambda: note.delay("first", then=["second"]))
    note.delay("stranger")
    station.run_all()

    assert sorted(seen) == [("first", 0, "req-1"), ("second", 0, "req-1"), ("stranger", 0, "")]


def test_retries_keep_it(station, note, seen, web):
    start(web, lambda: note.delay(fail=2))
    station.run_all()

    assert seen == [("note", retries, "req-1") for retries in range(3)]


def test_chains_groups_links_and_error_callbacks_keep_it(station, note, seen, web):
    start(
        web,
        chain(note.si("a"), group(note.si("b"), note.si("c")), note.si("d")).delay,
        lambda: note.apply_async(("e",), link=note.si("f")),
    )
    station.run_all()

    assert sorted(name for name, _retries, _id in seen) == ["a", "b", "c", "d", "e", "f"]
    assert {request_id for _name, _retries, request_id in seen} == {"req-1"}


def test_the_body_of_a_chord_keeps_it_and_so_does_the_body_of_one_within_a_chain(station, note, seen, web):
    start(web, lambda: chord([note.si("a"), note.si("b")])(note.si("body")))
    station.run_all()

    assert sorted(seen) == [("a", 0, "req-1"), ("b", 0, "req-1"), ("body", 0, "req-1")]


def test_what_is_sent_on_commit_has_it(station, note, seen, web, django_capture_on_commit_callbacks):
    def on_commit():
        with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
            note.delay_on_commit()
            assert station.waiting() == 0

    start(web, on_commit)
    station.run_all()

    assert seen == [("note", 0, "req-1")]


@pytest.mark.django_db(transaction=True)
def test_atomic_requests_commit_while_the_id_is_set(station, note, seen, web, settings):
    from django.db import connection

    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        start(web, note.delay_on_commit)
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    station.run_all()

    assert seen == [("note", 0, "req-1")]


def test_a_message_that_waits_in_the_outbox_keeps_it(station, note, seen, web):
    start(web, lambda: note.apply_async(outbox=True))
    assert OutboxMessage.objects.get().headers["taskkit_request_id"] == "req-1"
    assert station.waiting() == 0

    Relay(station.app).run_once()
    station.run_all()

    assert seen == [("note", 0, "req-1")]


def test_a_dead_letter_keeps_it_and_the_request_that_requeues_does_not_change_it(station, seen, web):
    @station.app.task(name="tests.dies")
    def dies():
        seen.append(current_request_id())
        raise LookupError("no")

    start(web, dies.delay)
    station.run_all()
    begin.clear()
    begin.append(lambda: requeue(DeadLetter.objects.all()))
    get(web, request_id="of-the-admin")
    station.run_all()

    assert DeadLetter.objects.get().headers["taskkit_request_id"] == "req-1"
    assert seen == ["req-1", "req-1"]


def test_a_task_that_is_run_inline_has_it(station, note, seen, web):
    start(web, note.apply)

    assert seen == [("note", 0, "req-1")]


def test_a_task_that_an_asynchronous_view_starts_in_a_thread_has_it(station, note, seen):
    begin.append(note.delay)

    async def ask():
        return await AsyncClient().get("/async", headers={HEADER: "req-1"})

    async_to_sync(ask)()
    station.run_all()

    assert seen == [("note", 0, "req-1")]
