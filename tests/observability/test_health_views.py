"""What a load balancer is told: alive, ready, or which part is not."""

import asyncio
import threading

import pytest
from django.test import AsyncClient, Client, override_settings
from django.urls import include, path

from django_taskkit.observability.health import readiness
from django_taskkit.observability.health.readiness import NotReadyError, Part

urlpatterns = [path("", include("django_taskkit.observability.health.urls"))]

pytestmark = [pytest.mark.urls(__name__), pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def asked_anew():
    for part in readiness.PARTS.values():
        part.forget()
    yield
    for part in readiness.PARTS.values():
        part.answer(10)


@pytest.fixture
def client(station):
    station.app.set_current()
    return Client()


def test_alive_asks_nobody(client, django_assert_num_queries):
    with django_assert_num_queries(0):
        answer = client.get("/healthz")

    assert (answer.status_code, answer.content) == (200, b"ok\n")
    assert "no-store" in answer["Cache-Control"]


def test_ready_when_all_parts_are_there(client):
    answer = client.get("/readyz")

    assert answer.json() == {"ready": True, "parts": {"database": "ok", "migrations": "ok", "broker": "ok"}}
    assert answer.status_code == 200


def test_the_part_that_is_not_there_is_named_without_its_address(client, station):
    station.app.conf.update(broker_url="redis://:secret@127.0.0.1:1/0", broker_transport=None)

    answer = client.get("/readyz")

    assert answer.status_code == 503
    parts = answer.json()["parts"]
    assert {name for name, said in parts.items() if said != "ok"} == {"broker"}
    assert b"secret" not in answer.content
    assert b"127.0.0.1" not in answer.content
    assert client.get("/readyz?without=broker").status_code == 200


def test_a_part_that_does_not_exist_is_an_error(client):
    assert client.get("/readyz?without=<b>").status_code == 400


def test_only_reading_is_allowed(client):
    assert client.post("/readyz").status_code == 405
    assert client.head("/readyz").status_code == 200


def test_in_an_event_loop_it_works_as_well(client):
    answer = asyncio.run(AsyncClient().get("/readyz?without=broker"))

    assert answer.status_code == 200


def test_an_answer_is_remembered_for_some_seconds():
    now, asked = [0.0], []
    part = Part(lambda: asked.append(1), clock=lambda: now[0])

    for seconds in (0, 4, 6):
        now[0] = seconds
        part.begin()
        assert part.answer(5) == "ok"

    assert len(asked) == 2


def test_what_holds_for_good_is_not_asked_again_once_it_holds():
    now, asked = [0.0], []

    def ask():
        asked.append(1)
        if len(asked) < 2:
            raise NotReadyError("1 migration not applied")

    part = Part(ask, for_good=True, clock=lambda: now[0])
    answers = []
    for seconds in (0, 100, 200, 300):
        now[0] = seconds
        part.begin()
        answers.append(part.answer(5))

    assert answers == ["1 migration not applied", "ok", "ok", "ok"]
    assert len(asked) == 2


def test_what_is_silent_is_waited_for_no_longer_and_asked_once():
    let_go, asked = threading.Event(), []

    def ask():
        asked.append(1)
        let_go.wait(30)

    part = Part(ask)
    for _ in range(3):
        part.begin()
        assert part.answer(0.01) == "no answer"
    let_go.set()
    assert part.answer(10) == "ok"
    assert len(asked) == 1


def test_a_process_without_an_app_is_not_ready(db):
    with override_settings():
        assert readiness.PARTS["database"].answer(0) == ""
