"""A chord's body is sent although the process of a member is killed between the end of the member and its report."""

from __future__ import annotations

import os
import signal

import harness
import pytest
from celery import chord, signature

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("broker", ["redis", pytest.param("rabbitmq", marks=pytest.mark.soak)], indirect=True)
@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("place", ["before it is counted", "before the body is sent"])
def test_a_member_is_killed(broker, producer, start_worker, django_env, tmp_path, place, late):
    env = {**django_env, "TASKKIT_TEST_PLACE": place, "TASKKIT_TEST_MARKER": str(tmp_path / "killed")}
    settings = {
        "result_backend": f"chord_killed_app:Backend+{broker.settings['result_backend']}",
        "task_acks_late": late,
        "task_reject_on_worker_lost": late,
        "worker_lost_wait": 1,
    }
    start_worker("chord_killed_app", broker, env=env, settings=settings)
    header = [signature("chord_killed.number", (number,), app=producer) for number in (1, 2)]

    result = chord(header)(signature("chord_killed.total", app=producer))

    harness.wait_until(result.ready, 60, "the body has ended")
    assert result.get() == 3
    assert (tmp_path / "killed").exists()


SOON_AGAIN = {"visibility_timeout": 20, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
"""Redis gives back what a killed worker held; not so soon that a slow worker has not acknowledged it yet."""


@pytest.mark.parametrize("broker", ["redis", pytest.param("rabbitmq", marks=pytest.mark.soak)], indirect=True)
def test_the_worker_is_killed_while_it_waits_for_the_claim_of_its_dead_process(
    broker, producer, start_worker, django_env, tmp_path
):
    env = {
        **django_env,
        "TASKKIT_TEST_PLACE": "before the body is sent",
        "TASKKIT_TEST_MARKER": str(tmp_path / "killed"),
    }
    settings = {
        "result_backend": f"chord_killed_app:Backend+{broker.settings['result_backend']}",
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_lost_wait": 1,
        "result_chord_join_timeout": 10,  # the claim lasts twice as long
        "broker_transport_options": SOON_AGAIN if broker.name == "redis" else {},
    }
    worker = start_worker("chord_killed_app", broker, env=env, settings=settings)
    header = [signature("chord_killed.number", (number,), app=producer) for number in (1, 2)]
    result = chord(header)(signature("chord_killed.total", app=producer))
    worker.wait_for_log("its chord is claimed")
    # By then it has acknowledged what it was to acknowledge: it does so with its next round.
    harness.wait_until(header[0].apply_async().ready, 15, "another task has ended")

    os.killpg(worker.pid, signal.SIGKILL)
    start_worker("chord_killed_app", broker, env=env, settings=settings)

    harness.wait_until(result.ready, 90, "the body has ended")
    assert result.get() == 3
