"""Members of chords and groups that die are held: their workflow waits until they are requeued or discarded."""

from __future__ import annotations

import json
from collections import Counter

import harness
import pytest
from celery import chain, chord, group, signature
from celery.result import AsyncResult

from django_taskkit.dlq import discard, requeue
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db(transaction=True)

on_redis = pytest.mark.parametrize("broker", ["redis"], indirect=True)


@pytest.fixture(params=["redis", "django-db"])
def results(request):
    """Where results go."""
    return request.param


@pytest.fixture
def producer(broker, results, tables_of_results, producer):
    if results == "django-db":
        broker.settings["result_backend"] = producer.conf.result_backend = "django-db"
    return producer


@pytest.fixture
def start(broker, producer, start_worker, django_env, tmp_path, monkeypatch):
    """Start a worker on the database of this test; what the test itself calls notes in the same file."""
    env = {"TASKKIT_TEST_CALLS": str(tmp_path / "calls"), "TASKKIT_TEST_CURE": str(tmp_path / "cures")}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    # A web process knows the project's tasks. Not when this file is collected: shared tasks are those of every app.
    import hold_tasks  # noqa: F401

    env.update(django_env, DJANGO_SETTINGS_MODULE="chords_settings")
    return lambda **options: start_worker("hold_app", broker, env=env, **{"concurrency": 3, **options})


@pytest.fixture
def task(producer):
    """Make a signature."""
    return lambda name, /, *args, **kwargs: signature(f"hold.{name}", args, kwargs, app=producer)


@pytest.fixture
def calls(tmp_path):
    """What bodies and error callbacks noted so far."""
    path = tmp_path / "calls"
    return lambda: path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def cure(tmp_path):
    """From now on nothing fails any more, or not with that value."""
    folder = tmp_path / "cures"
    folder.mkdir()
    return lambda what="all": (folder / str(what)).touch()


def letters(status, count):
    """The dead letters of that status, once there are so many."""
    rows = DeadLetter.objects.filter(status=status).order_by("pk")
    harness.wait_until(lambda: rows.count() == count, 60, f"{count} rows are {status}")
    return list(rows)


def ended(result, timeout=60):
    """The state of ``result``, once it has one for good."""
    harness.wait_until(result.ready, timeout, f"{result} has ended")
    return result.state


def value(producer, result):
    """What came of it in the end; asked for anew, as a result object keeps a failure that it has seen."""
    harness.wait_until(lambda: AsyncResult(result.id, app=producer).state == "SUCCESS", 60, f"{result} succeeded")
    return AsyncResult(result.id, app=producer).result


def held(producer, *ids):
    """Wait until the results say so."""
    for task_id in ids:
        result = AsyncResult(task_id, app=producer)
        harness.wait_until(lambda result=result: result.state == "HELD", 30, f"{task_id} is HELD")
        assert not result.ready()


@pytest.mark.parametrize(
    ("broker", "results"), [("redis", "redis"), ("redis", "django-db"), ("rabbitmq", "redis")], indirect=True
)
def test_a_chord_goes_on_when_three_members_that_died_are_requeued(start, producer, task, calls, cure):
    start()
    members = [task("fails", 1), task("is_killed", 10), task("is_endless", 100), task("number", 1000)]
    body = task("total").on_error(task("called_with_request"))
    result = chord([member.on_error(task("sent_the_id")) for member in members])(body)

    rows = letters("held", 3)
    held(producer, *[row.task_id for row in rows])
    assert Counter(row.reason for row in rows) == Counter(exception=1, worker_lost=1, time_limit=1)
    assert [event.kind for row in rows for event in row.events.all()] == ["held"] * 3
    assert result.state == "PENDING"

    requeue(rows[0], app=producer)  # dies again
    harness.wait_until(lambda: rows[0].events.count() == 3, 60, "it died again")
    assert [event.kind for event in rows[0].events.all()] == ["held", "requeued", "held"]
    held(producer, rows[0].task_id)

    cure()
    assert requeue(rows, app=producer).requeued == 3

    assert value(producer, result) == 1111
    letters("recovered", 3)
    assert value(producer, task("number", 5).apply_async()) == 5
    assert calls() == ["total 1111"]


@on_redis
def test_a_held_member_that_is_discarded_fails_its_chord_then_and_once(start, producer, task, calls):
    start()
    body = task("total").on_error(task("called_with_request"))
    member = task("fails", 1)
    member.link_error(task("called_with_request"))
    member.link_error(task("sent_the_id"))
    result = chord([member, task("number", 1)])(body)
    (row,) = letters("held", 1)
    held(producer, row.task_id)
    assert calls() == []

    assert discard(row, app=producer).discarded == 1
    assert discard(row, app=producer).discarded == 0

    assert ended(result) == "FAILURE"
    assert type(result.result).__name__ == "ChordError"
    dead = AsyncResult(row.task_id, app=producer)
    assert (dead.state, repr(dead.result)) == ("FAILURE", "ValueError('no 1')")
    if producer.conf.result_backend != "django-db":  # which keeps tracebacks of extended results alone
        assert "in fails" in dead.traceback
    harness.wait_until(lambda: len(calls()) == 3, 30, "the error callbacks ran")
    assert sorted(calls()) == sorted(
        [
            f"called for {row.task_id}: ValueError",
            f"called for {result.id}: ChordError",
            f"sent for {row.task_id}",
        ]
    )
    (row,) = letters("discarded", 1)


@on_redis
def test_nested_canvases_go_on(start, producer, task, calls, cure):
    start()

    def alone(name, *args):
        return task(name, *args).set(immutable=True)

    inner = chord([alone("fails", 1), chain(alone("fails", 10), task("plus", 1))], task("total", name="inner"))
    outer = chord([chain(alone("fails", 2), inner), alone("number", 5)], task("total", name="outer"))
    results = {
        "chain in chord in chain": chain(task("number", 0), outer, task("plus", 1)).apply_async(),
        "group in chain": chain(
            task("number", 100), group(task("plus", 1), task("fails", 2)), task("total", name="group"), task("plus", 1)
        ).apply_async(),
        "chain in group": group(task("fails", 7), chain(task("fails", 8), task("plus", 1))).apply_async(),
    }
    first = next(row for row in letters("held", 4) if row.envelope.payload()[0] == [2])

    cure(2)
    requeue(first, app=producer)
    letters("recovered", 1)  # and now the members of the inner chord are sent
    rows = letters("held", 5)
    held(producer, *[row.task_id for row in rows])
    assert not any(result.ready() for result in results.values())
    assert calls() == []

    cure()
    assert requeue(rows, app=producer).requeued == 5

    assert value(producer, results["chain in chord in chain"]) == (1 + 11) + 5 + 1
    assert value(producer, results["group in chain"]) == 101 + 102 + 1
    assert [value(producer, member) for member in results["chain in group"].results] == [7, 9]
    assert Counter(line.split()[0] for line in calls()) == Counter(inner=1, outer=1, group=1)


@on_redis
def test_a_chain_goes_on_with_the_message_that_would_have_come(start, producer, task, calls, cure):
    start()
    canvas = chain(
        task("tells", 0, fail_first=True).set(
            headers={"tenant": "t1", "traceparent": "00-1-2-01"}, shadow="shown", priority=3, time_limit=50,
            soft_time_limit=40, link=[task("plus", 1)],
        ),
        task("tells").set(
            headers={"tenant": "t2"}, shadow="later", time_limit=70, link_error=[task("sent_the_id")], priority=5
        ),
    )  # fmt: skip
    canvas.stamp(monitoring="m1")
    result = canvas.apply_async(link_error=task("sent_the_id"))
    (row,) = letters("dead", 1)
    assert ended(result) == "FAILURE"
    harness.wait_until(lambda: calls() == [f"sent for {row.task_id}"], 30, "the error callback ran")

    cure()
    requeue(row, app=producer)

    harness.wait_until(lambda: len(calls()) == 3, 60, "both ran")
    told = [json.loads(line) for line in calls()[1:]]
    first, second = told
    assert (first["id"], second["id"]) == (row.task_id, result.id)
    assert (first["root_id"], second["root_id"], second["parent_id"]) == (row.task_id,) * 3
    assert (first["tenant"], first["traceparent"], second["tenant"]) == ("t1", "00-1-2-01", "t2")
    assert (first["shadow"], second["shadow"]) == ("shown", "later")
    assert (first["timelimit"], second["timelimit"]) == ([50, 40], [70, None])
    assert (first["priority"], second["priority"]) == (3, 5)
    assert first["callbacks"] == ["hold.plus"]
    assert (first["errbacks"], second["errbacks"]) == (["hold.sent_the_id"], ["hold.sent_the_id"] * 2)
    assert (first["stamps"], second["stamps"]) == ({"monitoring": "m1"},) * 2
    assert value(producer, result) == 1


@on_redis
@pytest.mark.parametrize("results", ["redis"], indirect=True)
def test_error_callbacks_run_once_however_a_task_dies(start, producer, task, calls):
    start()
    names = ("hook_raises", "unheld_is_endless", "unheld_is_killed", "unknown")
    tasks = [task("unheld_fails", 1), *map(task, names)]
    callbacks = [task("called_with_request"), task("sent_the_id")]
    results = [one.apply_async(link_error=callbacks) for one in tasks]

    assert [ended(result) for result in results] == ["FAILURE"] * 5
    harness.wait_until(lambda: len(calls()) >= 10, 30, "all were called")
    assert value(producer, task("number", 5).apply_async()) == 5
    per_task = Counter((line.split()[0], line.split()[2].rstrip(":")) for line in calls())
    assert per_task == Counter({(how, result.id): 1 for how in ("called", "sent") for result in results})
