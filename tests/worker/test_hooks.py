"""What our hooks see of a task that succeeds, and what it pays for them."""

import pytest
from celery import signals
from celery.backends.base import DisabledBackend

from django_taskkit.dlq import requeue
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db


def status_after_a_requeue(station, backend=None, result=None, **options):
    """Let a task die, cure it, and requeue it; return what its dead letter is then."""
    cured = []

    @station.app.task(**options)
    def fail():
        if not cured:
            raise ValueError
        return result

    if backend is not None:
        fail.backend = backend
    fail.delay()
    station.run_next()
    cured.append(True)
    requeue(DeadLetter.objects.get())
    station.run_next()
    return DeadLetter.objects.get().status


@pytest.mark.parametrize("options", [{"ignore_result": True}, {}], ids=["ignored", "stored"])
@pytest.mark.parametrize("backend", ["disabled://", "cache+memory://"])
def test_a_requeued_task_recovers_wherever_its_result_goes(station, backend, options):
    station.app.conf.result_backend = backend

    assert status_after_a_requeue(station, **options) == "recovered"


class OwnBackend(DisabledBackend):
    def mark_as_done(self, *args, **kwargs):
        """Tell somebody else."""


def test_also_with_a_backend_of_the_projects_that_has_a_way_of_its_own_to_store_it(station):
    assert status_after_a_requeue(station, backend=OwnBackend(app=station.app)) == "recovered"


def test_a_requeued_task_whose_success_can_not_be_stored_does_not_recover(station):
    no_json = object()

    assert status_after_a_requeue(station, result=no_json) == "dead"


@pytest.mark.parametrize("name", ["task_received", "task_prerun", "task_postrun", "task_success"])
def test_no_signal_is_sent_for_us_with_every_task(name):
    """Celery's own signals cost a task a percent each; these have no other listeners of ours."""
    listeners = [receiver for _key, receiver in getattr(signals, name).receivers]

    assert not [it for it in listeners if getattr(it, "__module__", "").startswith("django_taskkit")]
