"""The cache as a decorator of the task."""

from __future__ import annotations

import pytest
from celery import Celery, Task, shared_task

from django_taskkit.results import ResultCache, Status, result_cache

pytestmark = pytest.mark.django_db


@pytest.fixture
def report(station):
    @result_cache(timeout=60, vary_on=("user_id",))
    @station.app.task(name="shop.report")
    def report(user_id):
        """Make a report."""
        return user_id

    return report


def test_the_task_has_its_cache(station, report):
    assert isinstance(report.cached, ResultCache)
    report.cached.get_or_dispatch(7)
    station.run_next()

    state = report.cached.get_or_dispatch(user_id=7)

    assert (state.status, state.value) == (Status.HIT, 7)


def test_all_else_of_it_is_as_before(station, report):
    assert isinstance(report, Task)
    assert (report.name, report.__doc__, report(7)) == ("shop.report", "Make a report.", 7)
    assert report.s(7).task == "shop.report"
    assert report.delay(7).id
    station.run_next()
    assert report.cached.peek(7).status is Status.ABSENT


def test_a_shared_task_is_not_looked_at_before_it_is_needed(without_shared_tasks):
    from celery import shared_task

    looked = []

    @result_cache(timeout=60)
    @shared_task(name="shop.shared", shared=False)
    def shared(user_id): ...

    assert not looked
    assert shared.cached.options.timeout == 60


def test_a_decorated_shared_task_does_not_finish_the_app_while_it_is_being_set_up(station):
    app = Celery("shop", set_as_current=True)

    @result_cache(timeout=60)
    @shared_task(name="shop.shared")
    def shared(): ...

    assert not app.finalized
