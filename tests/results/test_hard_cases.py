"""What a review of cached results found, each a promise of docs/results.md that was broken."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import datetime, timedelta, timezone

import pytest
from celery import Celery, Task, chain, shared_task
from celery.app.task import Context
from celery.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import SynchronousOnlyOperation
from django.core.management import call_command
from django.db import connection, transaction

from django_taskkit.base_tasks import BaseTaskWithRetry, DeadLetterTask
from django_taskkit.dlq import requeue
from django_taskkit.exceptions import ConfigurationError, StoreError
from django_taskkit.models import DeadLetter
from django_taskkit.progress import Speaker
from django_taskkit.results import ResultCache, Status, fulfilment, result_cache
from django_taskkit.results.fulfilment import began
from django_taskkit.results.order import read_order
from django_taskkit.results.runs import look_up
from django_taskkit.results.values import pack, unpack
from django_taskkit.stores.cache import CacheStore
from django_taskkit.stores.renewal import renewer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def slow(station):
    """A task whose body does, in its middle, what the test has put into ``slow.meanwhile``."""
    meanwhile, made = [], []

    @station.app.task(name="shop.slow", bind=True, base=DeadLetterTask)
    def slow(self, user_id):
        made.append(user_id)
        number = len(made)
        while meanwhile:
            meanwhile.pop()()
        return number

    task = station.app.tasks["shop.slow"]
    task.meanwhile, task.made = meanwhile, made
    return task


@contextlib.contextmanager
def outage(monkeypatch, *names):
    """The store is out of reach for a moment; the cache itself isn't asked."""

    def fail(self, *args, **kwargs):
        raise StoreError("a moment's outage")

    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(CacheStore, name, fail)
        yield


@pytest.fixture
def no_pause(monkeypatch):
    """The outage is over before a pause would be."""
    monkeypatch.setattr("django_taskkit.stores.pausing.SHORTEST", 0.0)


def run_with_an_outage_at_its_start(station, monkeypatch, slow):
    stack = contextlib.ExitStack()
    stack.enter_context(outage(monkeypatch, "read", "swap"))
    slow.meanwhile.append(stack.close)
    station.run_next()


def test_what_was_invalidated_does_not_come_back_although_the_run_could_not_put_its_mark(
    station, slow, monkeypatch, no_pause
):
    cache = ResultCache(slow)
    cache.get_or_dispatch(7)
    slow.meanwhile.append(lambda: cache.invalidate(7))

    run_with_an_outage_at_its_start(station, monkeypatch, slow)

    assert slow.made == [7]
    assert not cache.peek(7).has_value


def test_a_tag_counts_although_the_cache_was_away_when_the_run_began(station, slow, monkeypatch, no_pause):
    cache = ResultCache(slow, tags=("user:{user_id}",))
    cache.get_or_dispatch(7)
    run_with_an_outage_at_its_start(station, monkeypatch, slow)

    cache.invalidate_tag("user:7")

    assert not cache.peek(7).has_value


def test_what_the_cache_lost_for_a_worker_is_made_again_when_its_time_is_up(station, slow, monkeypatch, clock):
    cache = ResultCache(slow, lock_timeout=60)
    cache.get_or_dispatch(7)
    with outage(monkeypatch, "read", "swap", "trade"):
        station.run_next()
    from django_taskkit.stores.opening import _open

    _open.clear()
    clock.shift(61)

    assert cache.get_or_dispatch(7).dispatched


def test_a_retry_that_could_not_put_its_mark_is_made_again_when_somebody_asks(station, fragile, monkeypatch):
    cache = ResultCache(fragile)
    cache.get_or_dispatch(7)
    fragile.errors.append(OSError("busy"))
    station.run_next()
    assert cache.peek(7).status is Status.RETRYING

    def out_of_reach(*args, **kwargs):
        raise StoreError("a moment's outage")

    monkeypatch.setattr(fulfilment, "update", out_of_reach)  # which puts the mark
    station.run_next()

    assert cache.get_or_dispatch(7).dispatched


def test_a_renewal_that_fails_once_does_not_cost_the_value(station, slow, monkeypatch):
    """One answer of the cache that came too late, seconds before the end of a run of hours."""
    cache = ResultCache(slow)
    sent = cache.get_or_dispatch(7)

    def renewal_fails():
        (duty,) = [one for one in renewer._duties if sent.task_id in one.what]
        with outage(monkeypatch, "read"):
            duty.do(renewer.clock())

    slow.meanwhile.append(renewal_fails)
    station.run_next()

    from django_taskkit.stores.opening import _open

    _open.clear()  # the web process has a store of its own, which nothing pauses
    assert cache.peek(7).status is Status.HIT


def test_a_value_that_the_store_does_not_take_is_a_failure(station, slow, monkeypatch):
    """The comment in fulfilment.succeeded: 'Perhaps the value alone was too much, and the record can be written'."""
    cache = ResultCache(slow)
    cache.get_or_dispatch(7)
    with outage(monkeypatch, "trade"):
        station.run_next()

    from django_taskkit.stores.opening import _open

    _open.clear()
    assert cache.peek(7).status is Status.FAILED


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


def test_a_task_with_an_idempotency_key_is_refused(station):
    """Its second run would be answered with what the first one has returned."""

    @station.app.task(name="shop.counted", base=BaseTaskWithRetry, idempotency_key=("user_id",))
    def counted(user_id): ...

    with pytest.raises(ConfigurationError, match="has an idempotency_key"):
        ResultCache(counted).get_or_dispatch(user_id=7)


@pytest.fixture
def fragile(station):
    errors = []

    @station.app.task(name="shop.fragile", bind=True, base=BaseTaskWithRetry, autoretry_for=(OSError,))
    def fragile(self, user_id):
        if errors:
            raise errors.pop(0)
        return user_id

    task = station.app.tasks["shop.fragile"]
    task.errors = errors
    return task


def test_a_requeue_is_on_its_way_also_after_the_error_timeout(station, fragile, clock):
    cache = ResultCache(fragile, error_timeout=60)
    cache.get_or_dispatch(7)
    fragile.errors.append(ValueError("no such user"))
    station.run_next()
    clock.shift(50)
    requeue(DeadLetter.objects.all(), by="ann")
    clock.shift(15)

    assert not cache.get_or_dispatch(7).dispatched


def test_a_requeue_that_is_lost_is_noticed(station, fragile, clock):
    cache = ResultCache(fragile, error_timeout=None, lock_timeout=30)
    cache.get_or_dispatch(7)
    fragile.errors.append(ValueError("no such user"))
    station.run_next()
    requeue(DeadLetter.objects.all(), by="ann")
    station.take()  # and lose it
    clock.shift(3600)

    assert cache.peek(7).status is Status.LOST


def test_a_value_without_the_tags_of_today_does_not_count(station, report):
    """Made by another ResultCache of the same task, or by the deployment before the one that has the tag."""
    ResultCache(report).get_or_dispatch(7)
    station.run_next()
    tagged = ResultCache(report, tags=("user:{user_id}",))
    tagged.invalidate_tag("user:7")

    assert tagged.get_or_dispatch(7).dispatched


def test_a_tag_lives_as_long_as_the_longest_value_that_has_it(station, report, slow, clock):
    long, short = (
        ResultCache(report, timeout=None, tags=("user:{user_id}",)),
        ResultCache(slow, timeout=60, tags=("user:{user_id}",)),
    )
    for cache in (long, short):
        cache.get_or_dispatch(7)
        station.run_next()
    clock.shift(2 * 86_400)

    assert long.peek(7).status is Status.HIT


def test_a_value_of_a_cache_that_writes_json_or_msgpack_is_one():
    """django-redis with its JSONSerializer or MSGPackSerializer gives a list for a tuple."""
    from django_taskkit.results.values import Kept

    kept = Kept({"rows": 3}, 1.0, "id", 300, {})

    assert unpack(list(pack(kept))) == kept


def test_who_is_stopped_before_it_has_sent_says_that_nothing_is_on_its_way(station, report, monkeypatch):
    """gunicorn ends a request that takes too long by SystemExit; gevent's Timeout is no Exception either."""

    def ended(*args, **kwargs):
        raise SystemExit(1)

    cache = ResultCache(report)
    with monkeypatch.context() as patch:
        patch.setattr("django_taskkit.results.dispatch.write_card", ended)
        with pytest.raises(SystemExit):
            cache.get_or_dispatch(7)

    assert cache.get_or_dispatch(7).dispatched


def test_a_task_that_waits_for_days_can_be_looked_up_as_long(station, report, clock):
    cache = ResultCache(report, lock_timeout=3 * 86_400)
    sent = cache.get_or_dispatch(7)
    clock.shift(86_400 + 60)
    assert cache.peek(7).status is Status.PENDING

    assert look_up("default", sent.task_id).status is Status.PENDING


def test_what_is_looked_up_is_not_fresh_when_it_is_stale(station, report, clock):
    cache = ResultCache(report, timeout=60, stale_for=600)
    sent = cache.get_or_dispatch(7)
    station.run_next()
    clock.shift(100)

    state = look_up("default", sent.task_id)

    assert (cache.peek(7).status, state.status) == (Status.STALE, Status.STALE)


def test_another_message_is_said_soon_also_when_the_last_one_came_to_its_end():
    said, now = [], [0.0]
    speaker = Speaker(lambda *what: said.append(what), clock=lambda: now[0])
    for number in range(1, 1001):
        speaker.say(number, 1000, "reading")
    speaker.say(0, None, "writing the file")  # and says nothing more for five minutes

    assert said[-1] == (0, None, "writing the file")


def test_a_run_in_a_eager_test_is_not_run_a_second_time_when_it_raises(station):
    runs = []

    @station.app.task(name="shop.raising")
    def raising():
        runs.append(1)
        raise RuntimeError("bad")

    station.app.conf.update(task_always_eager=True, task_eager_propagates=True)
    with contextlib.suppress(RuntimeError):
        ResultCache(raising, when_refused="inline").get_or_dispatch()

    assert len(runs) == 1


def test_a_soft_time_limit_that_strikes_while_the_value_is_set_is_a_failure(station, slow, monkeypatch):
    def over(self, *args, **kwargs):
        raise SoftTimeLimitExceeded

    cache = ResultCache(slow)
    cache.get_or_dispatch(7)
    with monkeypatch.context() as patch:
        patch.setattr(CacheStore, "trade", over)
        station.run_next()

    assert cache.peek(7).status is Status.FAILED


HEADER = {
    "cache": "default",
    "key": "taskkit:result:v1:shop.report:{}",
    "timeout": 300,
    "stale_for": 0,
    "lock_timeout": 900,
    "error_timeout": 60,
    "lease": 60,
    "task_id": "7",
}


@pytest.mark.parametrize("name", ["timeout", "stale_for", "lock_timeout", "error_timeout"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1], ids=str)
def test_a_header_with_a_time_that_is_none_is_none_of_ours(name, value):
    """A lock_timeout below 0, or NaN, has the renewing thread turn without a pause."""
    assert read_order(HEADER) is not None
    assert read_order({**HEADER, name: value}) is None


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


def test_a_decorated_shared_task_does_not_finish_the_app_while_it_is_being_set_up(station):
    app = Celery("shop", set_as_current=True)

    @result_cache(timeout=60)
    @shared_task(name="shop.shared")
    def shared(): ...

    assert not app.finalized


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


def test_what_the_outbox_forgot_in_a_rollback_is_waited_for_a_minute(station, report, settings, clock):
    settings.TASKKIT = {"OUTBOX": "always"}
    cache = ResultCache(report)
    with contextlib.suppress(KeyError), transaction.atomic():
        cache.get_or_dispatch(7)
        raise KeyError("what a view raises under ATOMIC_REQUESTS")
    assert station.waiting() == 0
    clock.shift(61)

    assert cache.get_or_dispatch(7).dispatched


@pytest.fixture
def table(settings):
    """The database cache ``db``."""
    backend = "django.core.cache.backends.db.DatabaseCache"
    settings.CACHES = {**settings.CACHES, "db": {"BACKEND": backend, "LOCATION": "taskkit_review"}}
    call_command("createcachetable", "taskkit_review", verbosity=0)
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE taskkit_review")


class TestInTheDatabase:
    def test_arguments_in_small_and_capital_letters_are_two_calls(self, station, table):
        """On MariaDB, whose tables take both for one: run with TASKKIT_TEST_DATABASE=mariadb."""

        @station.app.task(name="shop.named")
        def named(user):
            return f"for {user}"

        cache = ResultCache(named, cache="db")
        for user in ("Bob", "bob"):
            cache.get_or_dispatch(user)
            station.run_all()

        assert (cache.peek("Bob").value, cache.peek("bob").value) == ("for Bob", "for bob")

    def test_who_calls_it_from_async_code_is_told_so(self, station, report, table):
        async def view():
            return ResultCache(report, cache="db").get_or_dispatch(7)

        with pytest.raises(SynchronousOnlyOperation):
            asyncio.run(view())
