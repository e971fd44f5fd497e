"""BaseTaskWithRetry and DeadLetterTask as the task class of a whole application."""

import pytest

from django_taskkit.base_tasks import BaseTaskWithRetry, DeadLetterTask
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db


@pytest.fixture(params=[BaseTaskWithRetry, "django_taskkit.base_tasks:BaseTaskWithRetry"], ids=["class", "path"])
def app(request, station):
    station.app.task_cls = request.param
    return station.app


def fails(*args):
    raise ValueError("no")


def test_a_task_that_asks_for_nothing_dies_at_its_first_error(app, station):
    app.task(name="fails")(fails).delay()

    assert station.run_all() == 1
    assert DeadLetter.objects.get().reason == "exception"


@pytest.mark.parametrize("cls", [DeadLetterTask, BaseTaskWithRetry])
@pytest.mark.parametrize("setting", [True, False])
def test_it_is_acknowledged_as_the_setting_of_celery_says(station, cls, setting):
    station.app.task_cls = cls
    station.app.conf.task_acks_late = setting

    assert station.app.task(name="fails")(fails).acks_late is setting


def test_celerys_own_tasks_are_not_changed(app, station):
    unlock = app.tasks["celery.chord_unlock"]

    assert isinstance(unlock, BaseTaskWithRetry)
    assert (unlock.autoretry_for, unlock.acks_late) == ((), False)


def test_a_task_that_names_what_to_retry_gets_it(app, station):
    app.task(name="fails", autoretry_for=(ValueError,), max_retries=2, acks_late=True)(fails).delay()

    assert station.run_all() == 3
    assert app.tasks["fails"].acks_late
    assert DeadLetter.objects.get().reason == "retries_exhausted"


def test_annotations_can_ask_for_every_task(app, station):
    app.conf.task_annotations = {"*": {"autoretry_for": (Exception,), "max_retries": 1, "acks_late": True}}

    app.task(name="fails")(fails).delay()

    assert station.run_all() == 2
    assert app.tasks["fails"].acks_late


def test_a_task_whose_base_is_named_is_retried_and_acknowledged_late_all_the_same(app, station):
    named = app.task(name="fails", base=BaseTaskWithRetry, max_retries=1)(fails)
    named.delay()

    assert station.run_all() == 2
    assert named.acks_late


def test_what_a_class_of_the_project_says_holds_for_all_its_tasks(station):
    class ProjectTask(BaseTaskWithRetry):
        abstract = True
        autoretry_for = (ValueError,)
        max_retries = 1
        acks_late = True

    station.app.task_cls = ProjectTask
    task = station.app.task(name="fails")(fails)
    task.delay()

    assert station.run_all() == 2
    assert task.acks_late


def test_what_it_does_not_say_is_left_to_celery(station):
    class ProjectTask(BaseTaskWithRetry):
        abstract = True
        max_retries = 1

    station.app.task_cls = ProjectTask
    task = station.app.task(name="fails")(fails)
    task.delay()

    assert station.run_all() == 1
    assert not task.acks_late


def test_a_retry_by_hand_still_follows_the_policy(app, station):
    @app.task(bind=True, max_retries=2)
    def by_hand(self):
        raise self.retry()

    by_hand.delay()

    assert station.run_all() == 3


def test_a_class_derived_from_the_application_class_asks_for_itself(app, station):
    class Asking(app.Task):
        name = "asking"
        autoretry_for = (ValueError,)
        max_retries = 1

        def run(self):
            raise ValueError

    app.register_task(Asking()).delay()

    assert station.run_all() == 2
