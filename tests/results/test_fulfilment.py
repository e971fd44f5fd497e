"""What a worker tells of its runs: retries, replacements and lost processes."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import pytest
from celery import Task, chain
from celery.app.task import Context

from django_taskkit.results import ResultCache, Status
from django_taskkit.results.fulfilment import began

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_message_that_copies_the_headers_of_a_run_does_not_set_its_value(station):
    """``headers=self.request.headers``, as one hands on a tenant or a trace."""

    @station.app.task(name="shop.page", bind=True)
    def page(self, number):
        if number == 1:
            self.apply_async((2,), headers=self.request.headers)
        return f"page {number}"

    cache = ResultCache(page)
    cache.get_or_dispatch(1)
    station.run_all()

    assert cache.peek(1).value == "page 1"


def test_a_task_that_is_replaced_by_a_chain_is_on_its_way(station):
    @station.app.task(name="shop.add")
    def add(x, y):
        return x + y

    @station.app.task(name="shop.handing_over", bind=True)
    def handing_over(self, x):
        return self.replace(chain(add.s(x, 1), add.s(10)))

    cache = ResultCache(handing_over)
    sent = cache.get_or_dispatch(7)
    station.run_next()
    assert cache.peek(7).status is Status.PENDING

    station.run_all()

    state = cache.peek(7)
    assert (state.status, state.value, state.task_id) == (Status.HIT, 18, sent.task_id)


def test_a_run_that_has_sent_a_retry_and_returns_sets_no_value(station):
    """As hooks.py says of a message under the own id: 'this run decides nothing any more'."""

    @station.app.task(name="shop.quiet", bind=True, default_retry_delay=0)
    def quiet(self, user_id):
        if self.request.retries == 0:
            self.retry(throw=False)
            return None
        return "ready"

    cache = ResultCache(quiet)
    cache.get_or_dispatch(7)
    station.run_next()

    assert cache.peek(7).is_waiting
    station.run_next()
    assert cache.peek(7).value == "ready"


def test_a_lost_process_whose_task_is_retried_is_on_its_way(station, slow, clock):
    if not hasattr(Task, "retry_on_worker_lost"):
        pytest.skip("Celery has it since 5.7")
    slow.retry_on_worker_lost, slow.default_retry_delay = True, 180
    cache = ResultCache(slow)
    cache.get_or_dispatch(7)
    request = station.request(station.take())
    request.execute_using_pool(station.pool)
    job = station.pool.jobs.pop().accept()
    began(Context(request.request_dict))
    job.lose()
    assert station.waiting() == 1
    clock.shift(100)

    assert not cache.get_or_dispatch(7).dispatched


def test_a_retry_at_a_time_without_zone_is_when_celery_says(station, monkeypatch):
    """Celery takes it for one of its own zone (UTC here), not for one of the machine."""

    @station.app.task(name="shop.later", bind=True)
    def later(self):
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        raise self.retry(eta=now + timedelta(hours=1), exc=OSError("busy"))

    cache = ResultCache(later)
    cache.get_or_dispatch()
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "Asia/Ho_Chi_Minh")
            time.tzset()
            station.run_next()
    finally:
        time.tzset()

    assert cache.peek().status is Status.RETRYING
