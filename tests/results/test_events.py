"""How a task stands, told as it changes: through Django's own handler, and by a real ASGI server over a socket."""

import http.client
import json
import queue
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.test import AsyncClient, override_settings

from django_taskkit.progress import set_progress
from django_taskkit.results import events
from django_taskkit.results.events import TaskEventsView
from django_taskkit.results.tokens import make_token
from tests.results.web import SECRET, a_live_project  # noqa: F401

PATIENCE = 10
"""Seconds in which whatever is expected has happened, or never will."""


@pytest.fixture
def project(live_project):
    live_project.serve("fast/<str:token>/", TaskEventsView.as_view(interval=0.01, keep_alive=0.05, lifetime=5))
    live_project.serve("slow/<str:token>/", TaskEventsView.as_view(interval=0.5, lifetime=60))
    live_project.serve("short/<str:token>/", TaskEventsView.as_view(interval=0.01, keep_alive=0.02, lifetime=0.2))
    return live_project


@pytest.fixture
def reports(project):
    return project.report()


@pytest.fixture
def token(reports):
    """Of a report that waits for a worker."""
    return token_of(reports.get_or_dispatch(2026))


def token_of(state, **more):
    return make_token(alias=state.cache, task_id=state.task_id, **{"then": "/reports/2026/", **more})


def read(text):
    """The events of a stream: name, id, and what is said."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in lines:
            found.append((lines["event"], lines.get("id"), json.loads(lines["data"])))
    return found


@async_to_sync
async def get(url, client=None, **headers):
    """The response, and all of its text."""
    response = await (client or AsyncClient()).get(url, headers=headers)
    if not response.streaming:
        return response, response.content.decode()
    return response, b"".join([chunk async for chunk in response.streaming_content]).decode()


# -- what is told


def test_what_is_done_is_told_at_once_and_the_stream_ends(project, token):
    project.run()
    response, text = get(f"/tasks/{token}/events/")

    assert response.status_code == 200
    assert response["Content-Type"] == "text/event-stream"
    assert response["Cache-Control"] == "no-store, no-transform"
    assert response["X-Accel-Buffering"] == "no"
    assert text.startswith("retry: 3000\n\n")
    said = {"status": "hit", "progress": None, "attempt": 0, "retry_after": None, "result_url": "/reports/2026/"}
    assert read(text) == [("end", "end", said)]


def test_a_task_is_followed_to_its_end(project, token):
    @async_to_sync
    async def follow():
        response = await AsyncClient().get(f"/fast/{token}/")
        text = ""
        async for chunk in response.streaming_content:
            text += chunk.decode()
            if "pending" in text and not project.calls:
                await sync_to_async(project.run)()
        return text

    told = [(name, said["status"]) for name, _id, said in read(follow())]

    assert told == [("progress", "pending"), ("end", "hit")]


def test_what_has_not_changed_is_not_told_again_and_the_stream_ends_in_time(project, token):
    _response, text = get(f"/short/{token}/")

    assert [said["status"] for _name, _id, said in read(text)] == ["pending"]
    assert ": still there\n\n" in text


def test_of_a_failure_nobody_is_told_why(project):
    cache = project.broken()
    state = cache.get_or_dispatch(2026)
    project.run()
    _response, text = get(f"/tasks/{token_of(state)}/events/")

    assert [(name, said["status"]) for name, _id, said in read(text)] == [("end", "failed")]
    assert not any(word in text for word in (SECRET, "vault", "RuntimeError", "broken"))


def test_who_comes_again_after_the_end_is_told_that_there_is_no_more(token):
    response, text = get(f"/tasks/{token}/events/", **{"last-event-id": "end"})

    assert (response.status_code, text) == (204, "")


def test_a_cache_that_goes_away_ends_the_stream(project, token, monkeypatch, caplog):
    looks = []

    def look_up(alias, task_id):
        looks.append(task_id)
        raise ConnectionError(SECRET)

    monkeypatch.setattr(events, "look_up", look_up)
    _response, text = get(f"/fast/{token}/")

    assert [said["status"] for _name, _id, said in read(text)] == ["pending"]
    assert len(looks) == 1
    assert "vault" not in text
    assert "can't be looked at" in caplog.text


def test_a_result_on_another_site_is_not_told(reports):
    state = reports.get_or_dispatch(2026)
    _response, text = get(f"/short/{token_of(state, then='https://evil.example/')}/")

    assert read(text)[0][2]["result_url"] is None


# -- who may know


def test_a_forged_token_is_not_found(reports):
    response, text = get("/tasks/forged/events/")

    assert (response.status_code, response["Content-Type"]) == (404, "application/json")
    assert "There is no such task" in text


def test_a_token_of_another_user_is_not_found(project, reports, django_user_model):
    ann, bob = (django_user_model.objects.create_user(name) for name in ("ann", "bob"))
    token = token_of(reports.get_or_dispatch(2026), user=ann)
    project.run()
    client = AsyncClient()

    assert get(f"/tasks/{token}/events/", client)[0].status_code == 404
    async_to_sync(client.aforce_login)(bob)
    assert get(f"/tasks/{token}/events/", client)[0].status_code == 404
    async_to_sync(client.aforce_login)(ann)
    assert get(f"/tasks/{token}/events/", client)[0].status_code == 200


def test_a_project_may_decide_who_is_told(project, token):
    async def nobody(request, state, pointer):
        return False

    project.serve("none/<str:token>/", TaskEventsView.as_view(authorize=nobody))

    assert get(f"/none/{token}/")[0].status_code == 404


def test_a_token_expires(project, token):
    project.serve("expired/<str:token>/", TaskEventsView.as_view(max_age=-1))

    assert get(f"/expired/{token}/")[0].status_code == 410


# -- where it runs


def test_under_wsgi_no_worker_of_the_web_server_is_kept_busy(project, token):
    response = project.get(f"/tasks/{token}/events/")

    assert response.status_code == 501
    assert "ASGI" in response.json()["detail"]


def test_events_can_only_be_read(project, token):
    response = project.client.post(f"/tasks/{token}/events/")

    assert (response.status_code, response["Allow"]) == (405, "GET")


def test_a_database_with_a_transaction_for_each_request_is_no_hindrance(token, monkeypatch):
    from django.db import connection

    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)

    assert get(f"/short/{token}/")[0].status_code == 200


def test_nothing_is_kept_back_to_be_compressed(token):
    # Not by the fixture, which would be undone after the URLs that came later.
    with override_settings(MIDDLEWARE=["django.middleware.gzip.GZipMiddleware", *settings.MIDDLEWARE]):
        response, text = get(f"/short/{token}/", **{"accept-encoding": "gzip"})

    assert "Content-Encoding" not in response
    assert read(text)


# -- a real server


@contextmanager
def uvicorn_server():
    uvicorn = pytest.importorskip("uvicorn")
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(get_asgi_application(), lifespan="off", log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()


@pytest.fixture
def server(project):
    with uvicorn_server() as port:
        yield port


def listen(port, path, told):
    """Read the events of ``path`` as a browser does, and put each into the queue ``told``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", path, headers={"Accept": "text/event-stream"})
    response = connection.getresponse()
    told.put(response.status)
    block = ""
    while line := response.readline().decode():
        block += line
        if line == "\n":
            for event in read(block):
                told.put(event)
            block = ""
    told.put(None)
    connection.close()


def wait_until(is_so):
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_a_client_hears_what_a_task_says_while_it_runs(project, server):
    told = queue.Queue()
    heard = []

    def next_event():
        heard.append(told.get(timeout=PATIENCE))

    def slow():
        next_event()
        for done in (1, 2, 3):
            set_progress(done, 3, f"part {done}")
            next_event()
        return "there"

    state = project.cache(slow).get_or_dispatch()
    listener = threading.Thread(target=listen, args=(server, f"/fast/{token_of(state)}/", told), daemon=True)
    listener.start()
    assert told.get(timeout=PATIENCE) == 200
    next_event()
    project.run()
    next_event()

    assert told.get(timeout=PATIENCE) is None  # the server has ended the stream
    listener.join(PATIENCE)
    said = [(name, said["status"], (said["progress"] or {}).get("percent")) for name, _id, said in heard]
    assert said == [
        ("progress", "pending", None),
        ("progress", "running", None),
        ("progress", "running", 33),
        ("progress", "running", 66),
        ("progress", "running", 100),
        ("end", "hit", None),
    ]


def test_the_cache_is_left_alone_when_a_client_has_gone(project, server, token, monkeypatch):
    looks = []

    def look_up(alias, task_id, look_up=events.look_up):
        looks.append(task_id)
        return look_up(alias, task_id)

    monkeypatch.setattr(events, "look_up", look_up)
    connection = http.client.HTTPConnection("127.0.0.1", server, timeout=PATIENCE)
    connection.request("GET", f"/fast/{token}/")
    response = connection.getresponse()
    wait_until(lambda: looks)
    response.close()
    connection.close()

    def has_stopped():
        before = len(looks)
        threading.Event().wait(0.2)
        return len(looks) == before

    wait_until(has_stopped)


def test_many_who_wait_keep_no_thread_each(project, server, token):
    def waiting_client():
        connection = http.client.HTTPConnection("127.0.0.1", server, timeout=PATIENCE)
        connection.request("GET", f"/slow/{token}/", headers={"Cookie": "sessionid=none"})
        return connection, connection.getresponse()

    before = threading.active_count()
    clients = [waiting_client() for _ in range(100)]
    wait_until(lambda: threading.active_count() < before + 40)  # a pool for all, of 32 at most

    project.run()
    texts = [response.read().decode() for _connection, response in clients]
    for connection, _response in clients:
        connection.close()
    assert {response.status for _connection, response in clients} == {200}
    assert [read(text)[-1][0] for text in texts] == ["end"] * 100
