"""Tasks with an idempotency key on Celery's real message path."""

from __future__ import annotations

import pytest
from django.core.cache import cache
from django.utils import timezone

from django_taskkit.base_tasks import BaseTaskWithRetry, Permanent
from django_taskkit.models import DeadLetter, OutboxMessage, RelayHeartbeat
from django_taskkit.outbox.presence import watch

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def relay_alive():
    """What waits goes to the outbox."""
    RelayHeartbeat.objects.create(name="other", started_at=timezone.now(), seen_at=timezone.now())
    watch.forget()
    yield
    watch.forget()
    cache.clear()


@pytest.fixture
def ran():
    return []


@pytest.fixture
def make(station, ran):
    def make(body=lambda order_id: {"paid": order_id}, **options):
        @station.app.task(base=BaseTaskWithRetry, name="shop.charge", **{"idempotency_key": "order_id", **options})
        def charge(order_id, note=""):
            ran.append(order_id)
            return body(order_id)

        return charge

    return make


def test_a_duplicate_succeeds_with_the_result_of_the_first_and_its_body_does_not_run(station, make, ran):
    charge = make()
    first, second = charge.delay(7), charge.delay(order_id=7, note="again")

    assert station.run_all() == 2

    assert ran == [7]
    assert first.get(timeout=5) == second.get(timeout=5) == {"paid": 7}


def test_what_follows_a_duplicate_in_a_chain_gets_that_result(station, make, ran):
    charge = make()

    @station.app.task(name="shop.thank")
    def thank(done):
        ran.append(done)

    charge.delay(7)
    (charge.s(7) | thank.s()).delay()
    station.run_all()

    assert ran == [7, {"paid": 7}]


def test_while_the_first_waits_for_its_retry_a_duplicate_waits_in_the_outbox_and_uses_up_no_retry(station, make, ran):
    def fail_once(order_id):
        if len(ran) == 1:
            raise ConnectionError("the bank is away")
        return "paid"

    charge = make(fail_once, max_retries=1)
    first, second = charge.delay(7), charge.delay(7)
    station.run_next()
    station.run_next()

    row = OutboxMessage.objects.get()
    assert (row.task_id, row.headers["retries"]) == (second.id, 0)
    assert ran == [7]
    station.run_next()
    assert first.get(timeout=5) == "paid"
    assert ran == [7, 7]


def test_when_the_first_dies_the_next_one_runs(station, make, ran):
    def fail_once(order_id):
        if len(ran) == 1:
            raise Permanent("the card was stolen")
        return "paid"

    charge = make(fail_once)
    first, second = charge.delay(7), charge.delay(7)
    station.run_all()

    assert DeadLetter.objects.get().task_id == first.id
    assert second.get(timeout=5) == "paid"


def test_a_key_function_that_fails_fails_its_task_whose_body_does_not_run(station, make, ran):
    make(idempotency_key=lambda order_id: str(1 / order_id), max_retries=2).delay(0)

    assert station.run_all() == 3
    assert ran == []
    letter = DeadLetter.objects.get()
    assert letter.exception_class.endswith("ZeroDivisionError")
    assert letter.reason == "retries_exhausted"


def test_a_key_that_can_not_be_written_is_a_dead_letter_at_once(station, make, ran):
    make().apply_async(({1, 2},), serializer="pickle")

    assert station.run_all() == 1
    assert ran == []
    letter = DeadLetter.objects.get()
    assert "order_id can't be written as JSON" in letter.exception_message
    assert letter.reason == "permanent"


def test_a_call_that_does_not_fit_ends_as_any_such_call(station, make, ran):
    make(typing=False).delay()

    assert station.run_all() == 1
    letter = DeadLetter.objects.get()
    assert letter.exception_class.endswith("TypeError")
    assert letter.reason == "exception"


def test_the_keys_of_a_task_that_was_called_or_is_eager_are_not_asked_for(station, make, ran):
    charge = make()

    assert charge(7) == charge(7) == {"paid": 7}
    assert charge.apply((7,)).get() == charge.apply((7,)).get() == {"paid": 7}
    assert len(ran) == 4
