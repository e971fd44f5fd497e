"""The processes of a project: workers, beat and relay."""

import pytest
from celery import Celery

from django_taskkit.routing.lane import Lane
from django_taskkit.routing.processes import (
    Process,
    beat_process,
    comments,
    has_schedule,
    relay_process,
    worker_process,
)
from django_taskkit.routing.workers import worker_plans


@pytest.fixture
def app():
    app = Celery("shop", broker="memory://", set_as_current=False, fixups=[])
    yield app
    app.close()


def test_a_worker_is_named_after_its_lane(app):
    (plan,) = worker_plans(app, lanes={"beat": Lane()}, cores=1)

    process = worker_process(plan, "shop")

    assert process.name == "worker-beat" != beat_process("shop").name
    assert (process.arguments, process.stop_grace, process.role, process.queues) == (
        plan.argv("shop"),
        plan.stop_grace,
        "worker",
        ("beat",),
    )


def test_the_one_worker_without_lanes_is_the_worker(app):
    (plan,) = worker_plans(app, lanes={}, cores=1)

    assert worker_process(plan, "shop").name == "worker"


def test_one_beat_is_enough_and_relays_share_the_work():
    assert beat_process("shop").single
    assert not relay_process().single
    assert "the others stand by" in beat_process("shop").why[0]


def test_only_without_a_lease_a_second_beat_does_harm():
    assert "send everything twice" not in str(beat_process("shop").why)
    assert "send everything twice" in beat_process("shop", leased=False).why[0]


def test_beat_does_not_stumble_over_the_pid_file_of_one_that_was_killed():
    assert beat_process("shop").arguments[-1] == "--pidfile="


def test_beat_has_something_to_send_by_a_schedule_or_by_a_scheduler_of_its_own(app):
    assert not has_schedule(app)

    app.conf.beat_scheduler = "django_celery_beat.schedulers:DatabaseScheduler"
    assert has_schedule(app)


def test_beat_has_something_to_send_when_the_settings_say_so(app):
    app.conf.beat_schedule = {"a": {"task": "a", "schedule": 1}}

    assert has_schedule(app)


def test_comments_are_short_lines_without_anything_that_a_terminal_obeys():
    process = Process(
        name="a", arguments=(), stop_grace=1, role="worker", why=("x\x1b[2Jy\nz",), warnings=("long " * 60,)
    )

    lines = list(comments(process))

    assert lines[0] == "x?[2Jy?z"
    assert lines[1].startswith("WARNING: long long")
    assert all(len(line) <= 100 and line.isprintable() for line in lines)
