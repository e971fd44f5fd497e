"""What a page gets, from the first request to the value and beyond."""

from __future__ import annotations

from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.exceptions import ConfigurationError
from django_taskkit.results import ResultCache, Status, TaskState
from django_taskkit.results.cache import declared

pytestmark = pytest.mark.django_db


def test_the_first_request_sends_the_task(station, report):
    state = ResultCache(report).get_or_dispatch(user_id=7)

    assert (state.status, state.dispatched, state.has_value, state.is_waiting) == (Status.PENDING, True, False, True)
    assert station.waiting() == 1


def test_the_next_requests_find_it_on_its_way(station, report):
    cache = ResultCache(report)
    first = cache.get_or_dispatch(user_id=7)

    for _ in range(3):
        state = cache.get_or_dispatch(7, month="2026-11")
        assert (state.status, state.task_id, state.dispatched) == (Status.PENDING, first.task_id, False)
    assert station.waiting() == 1


def test_when_the_task_has_ended_the_value_is_there(station, report, clock):
    cache = ResultCache(report, timeout=60)
    sent = cache.get_or_dispatch(user_id=7)
    station.run_next()
    clock.shift(20)

    state = cache.get_or_dispatch(user_id=7)

    assert state == TaskState(
        status=Status.HIT,
        value={"user": 7, "month": "2026-11", "made": 1},
        age=20,
        expires_in=40,
        task_id=sent.task_id,
        value_id=sent.task_id,
    )
    assert station.waiting() == 0


def test_other_arguments_are_another_value(station, report):
    cache = ResultCache(report)

    assert cache.get_or_dispatch(7).dispatched
    assert cache.get_or_dispatch(8).dispatched
    assert cache.get_or_dispatch(7, "2026-10").dispatched


def test_none_is_a_value(station):
    @station.app.task(name="shop.nothing")
    def nothing(): ...

    cache = ResultCache(nothing)
    cache.get_or_dispatch()
    station.run_next()

    state = cache.get_or_dispatch()

    assert (state.status, state.value, state.has_value) == (Status.HIT, None, True)


def test_a_value_keeps_its_kind_though_messages_are_json(station):
    @station.app.task(name="shop.kinds")
    def kinds():
        return (timedelta(days=1), {1: {2, 3}}, b"bytes")

    cache = ResultCache(kinds)
    cache.get_or_dispatch()
    station.run_next()

    assert cache.peek().value == (timedelta(days=1), {1: {2, 3}}, b"bytes")


def test_a_value_of_which_the_time_is_up_is_a_miss(station, report, clock):
    cache = ResultCache(report, timeout=60)
    cache.get_or_dispatch(7)
    station.run_next()
    clock.shift(60)

    state = cache.get_or_dispatch(7)

    assert (state.status, state.value) == (Status.PENDING, None)


def test_a_stale_value_is_shown_while_a_new_one_is_made_once(station, report, clock):
    cache = ResultCache(report, timeout=60, stale_for=600)
    cache.get_or_dispatch(7)
    station.run_next()
    clock.shift(100)

    first, second = cache.get_or_dispatch(7), cache.get_or_dispatch(7)

    assert (first.status, first.run, first.value["made"]) == (Status.STALE, Status.PENDING, 1)
    assert (first.age, first.expires_in) == (100, -40)
    assert (first.dispatched, second.dispatched, second.task_id) == (True, False, first.task_id)
    station.run_all()
    assert cache.get_or_dispatch(7).status is Status.HIT
    assert cache.get_or_dispatch(7).value["made"] == 2


def test_a_value_is_not_shown_for_longer_than_it_may_be_stale(station, report, clock):
    cache = ResultCache(report, timeout=60, stale_for=600)
    cache.get_or_dispatch(7)
    station.run_next()
    clock.shift(660)

    assert cache.get_or_dispatch(7).status is Status.PENDING


def test_without_a_timeout_a_value_stays_fresh(station, report, clock):
    cache = ResultCache(report, timeout=None)
    cache.get_or_dispatch(7)
    station.run_next()
    clock.shift(timedelta(days=400))

    state = cache.get_or_dispatch(7)

    assert (state.status, state.expires_in) == (Status.HIT, None)


def test_peek_sends_nothing(station, report, clock):
    cache = ResultCache(report, timeout=60, stale_for=600)

    assert cache.peek(7).status is Status.ABSENT
    cache.get_or_dispatch(7)
    assert cache.peek(7).status is Status.PENDING
    station.run_next()
    assert cache.peek(7).status is Status.HIT
    clock.shift(100)
    assert (cache.peek(7).status, cache.peek(7).run) == (Status.STALE, None)
    assert station.waiting() == 0


def test_refresh_sends_although_the_value_is_fresh(station, report):
    cache = ResultCache(report)
    cache.get_or_dispatch(7)
    station.run_next()

    state = cache.refresh(7)

    assert (state.status, state.run, state.dispatched) == (Status.STALE, Status.PENDING, True)
    assert (cache.peek(7).status, cache.peek(7).is_being_made, cache.peek(7).is_waiting) == (Status.STALE, True, False)
    assert cache.get_or_dispatch(7).status is Status.HIT
    station.run_next()
    assert cache.get_or_dispatch(7).value["made"] == 2


def test_refresh_joins_what_is_on_its_way(station, report):
    cache = ResultCache(report)
    first = cache.get_or_dispatch(7)

    state = cache.refresh(7)

    assert (state.task_id, state.dispatched) == (first.task_id, False)
    assert station.waiting() == 1


def test_an_invalidated_value_is_gone(station, report):
    cache = ResultCache(report)
    cache.get_or_dispatch(7)
    station.run_next()

    cache.invalidate(7)

    assert cache.peek(7).status is Status.ABSENT
    assert cache.get_or_dispatch(7).dispatched


def test_to_invalidate_what_has_not_begun_sends_nothing_twice(station, report):
    cache = ResultCache(report)
    cache.get_or_dispatch(7)

    cache.invalidate(7)

    assert not cache.get_or_dispatch(7).dispatched
    station.run_all()
    assert cache.get_or_dispatch(7).status is Status.HIT
    assert len(report.runs) == 1


def test_wait_returns_the_value_as_soon_as_it_is_there(station, report):
    cache = ResultCache(report)
    cache.get_or_dispatch(7)
    station.run_next()

    assert cache.wait(5, 7).status is Status.HIT


def test_wait_gives_up_when_its_time_is_over(station, report):
    assert ResultCache(report).wait(0.05, 7).status is Status.PENDING


def test_a_task_whose_results_are_ignored_has_values_all_the_same(station):
    @station.app.task(name="shop.ignored", ignore_result=True)
    def ignored():
        return 42

    cache = ResultCache(ignored)
    cache.get_or_dispatch()
    station.run_next()

    assert cache.peek().value == 42


def test_nothing_goes_into_the_result_backend_unless_asked_for(station, report):
    plain = ResultCache(report).get_or_dispatch(7)
    asked = ResultCache(report, options={"ignore_result": False}).get_or_dispatch(8)
    station.run_all()

    assert report.AsyncResult(plain.task_id).state == "PENDING"
    assert report.AsyncResult(asked.task_id).get(timeout=1)["user"] == 8


def test_options_of_apply_async_reach_the_message(station, report):
    cache = ResultCache(report, options={"priority": 3, "headers": {"tenant": "acme"}})
    cache.get_or_dispatch(7)

    message = station.take()

    assert message.properties["priority"] == 3
    assert message.headers["tenant"] == "acme"


def test_an_eager_app_has_the_value_at_once(station, report):
    station.app.conf.task_always_eager = True

    state = ResultCache(report).get_or_dispatch(7)

    assert (state.status, state.value["user"]) == (Status.HIT, 7)


def test_a_failure_in_an_eager_app_is_one(station):
    station.app.conf.task_always_eager = True

    @station.app.task(name="shop.broken")
    def broken():
        raise LookupError("no such month")

    state = ResultCache(broken).get_or_dispatch()

    assert (state.status, state.error.kind, state.error.message) == (Status.FAILED, "LookupError", "no such month")


def test_the_version_tells_old_values_from_new_ones(station, report):
    ResultCache(report, version=1).get_or_dispatch(7)
    station.run_next()

    assert ResultCache(report, version=2).peek(7).status is Status.ABSENT
    assert ResultCache(report, version=1).peek(7).status is Status.HIT


def test_a_method_of_a_class_based_task_is_called_as_ever(station):
    class Sum(BaseTaskWithRetry):
        name = "shop.sum"

        def run(self, *numbers, start=0):
            return sum(numbers, start)

    task = station.app.register_task(Sum())
    cache = ResultCache(task)
    cache.get_or_dispatch(1, 2, 3)
    station.run_next()

    assert cache.peek(1, 2, 3).value == 6
    assert cache.peek(1, 2).status is Status.ABSENT


def test_a_state_says_when_the_value_was_made(station, report, clock):
    cache = ResultCache(report)
    cache.get_or_dispatch(7)
    station.run_next()
    clock.shift(20)

    assert cache.peek(7).made_at.isoformat() == "2026-11-22T10:00:00+00:00"
    assert cache.peek(8).made_at is None


def test_what_somebody_else_has_under_our_key_is_a_miss(station, report):
    cache = ResultCache(report)
    caches["default"].set(cache.key(7), {"of": "somebody else"})

    assert cache.get_or_dispatch(7).dispatched


@async_to_sync
async def ask_in_every_way(cache):
    return [
        (await cache.apeek(7)).status,
        (await cache.await_(0.01, 7)).status,
        (await cache.aget_or_dispatch(7)).status,
        (await cache.arefresh(7)).status,
        await cache.ainvalidate(7),
        await cache.ainvalidate_tag("all"),
    ]


def test_all_has_a_twin_for_async_code(report):
    answers = ask_in_every_way(ResultCache(report, tags=("all",)))

    assert answers == [Status.ABSENT, Status.PENDING, Status.PENDING, Status.PENDING, None, None]


def test_the_caches_of_a_process_are_known(report):
    cache = ResultCache(report)

    assert cache in declared()
    assert repr(cache) == "<ResultCache of shop.report in 'default'>"


def test_a_task_with_an_idempotency_key_is_refused(station):
    """Its second run would be answered with what the first one has returned."""

    @station.app.task(name="shop.counted", base=BaseTaskWithRetry, idempotency_key=("user_id",))
    def counted(user_id): ...

    with pytest.raises(ConfigurationError, match="has an idempotency_key"):
        ResultCache(counted).get_or_dispatch(user_id=7)
