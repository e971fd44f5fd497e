"""Runs that are slow, invalidated, killed, frozen or dead: the newest value stays, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import time

import harness
import pytest
import result_cache_app as tasks
from celery import current_app
from django.core.cache import caches as django_caches
from result_caches import SHARED, Folder, all_is_done, wait_for_status

from django_taskkit.dlq import requeue
from django_taskkit.dlq.editing import edit
from django_taskkit.models import DeadLetter
from django_taskkit.results import Progress, ResultCache, Status

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

LEASE = 3
"""Seconds; short enough to be waited for, long enough for a machine that has much to do."""

every_cache = pytest.mark.parametrize("alias", SHARED)


@pytest.fixture(scope="module")
def broker():
    with harness.open_broker("redis") as broker:
        yield broker


@pytest.fixture(scope="module")
def worker(broker, result_env, tmp_path_factory):
    """The one that all tests share, in which nothing is killed."""
    with harness.workers(tmp_path_factory.mktemp("workers")) as start:
        yield start("result_cache_app", broker, pool="threads", concurrency=8, env=result_env())


@pytest.fixture(autouse=True)
def in_force(result_caches, settings):
    settings.CACHES = result_caches
    yield
    django_caches.close_all()


@pytest.fixture
def folder(tmp_path, producer):
    """Where this test and its tasks talk; they are sent by ``producer``."""
    return Folder(tmp_path / "tasks")


@pytest.fixture
def own_queue(broker, request):
    return broker.queue_named(f"own-{abs(hash(request.node.name))}")


@pytest.fixture
def start(start_worker, broker, result_env, own_queue):
    """Start a worker for this test alone, on its own queue."""

    def start(pool="prefork", concurrency=1, broker=broker, queue=own_queue, **options):
        if pool == "gevent":
            pytest.importorskip("gevent")
        return start_worker(
            "result_cache_app", broker, pool=pool, concurrency=concurrency, queues=[queue], env=result_env(), **options
        )

    return start


class TestFencing:
    @every_cache
    def test_a_slow_old_run_does_not_overwrite_what_a_newer_one_makes(self, alias, worker, broker, folder):
        cached = ResultCache(tasks.told, cache=alias)
        old = cached.get_or_dispatch(str(folder))
        folder.wait_for_runs(1)
        cached.invalidate(str(folder))
        new = cached.get_or_dispatch(str(folder))
        assert (old.dispatched, new.dispatched, old.task_id == new.task_id) == (True, True, False)
        folder.wait_for_runs(2)

        folder.touch("go-1")
        harness.wait_until(lambda: broker.unacknowledged_count() == 1, 30, "the old run has ended")
        assert (cached.peek(str(folder)).status, cached.peek(str(folder)).task_id) == ("running", new.task_id)

        folder.touch("go-2")
        state = wait_for_status(cached, folder, "hit")
        assert (state.value, state.value_id) == ({"run": 2}, new.task_id)

    @every_cache
    def test_not_even_when_the_newer_one_ended_long_before(self, alias, worker, broker, folder):
        cached = ResultCache(tasks.told, cache=alias)
        cached.get_or_dispatch(str(folder))
        folder.wait_for_runs(1)
        cached.invalidate(str(folder))
        new = cached.get_or_dispatch(str(folder))
        folder.wait_for_runs(2)
        folder.touch("go-2")
        wait_for_status(cached, folder, "hit")

        folder.touch("go-1")
        harness.wait_until(lambda: all_is_done(broker), 30, "the old run has ended")

        state = cached.get_or_dispatch(str(folder))
        assert (state.status, state.value, state.value_id) == (Status.HIT, {"run": 2}, new.task_id)

    @every_cache
    def test_what_was_invalidated_is_not_brought_back(self, alias, worker, broker, folder):
        cached = ResultCache(tasks.told, cache=alias)
        cached.get_or_dispatch(str(folder))
        folder.wait_for_runs(1)
        cached.invalidate(str(folder))

        folder.touch("go-1")
        harness.wait_until(lambda: all_is_done(broker), 30, "the run has ended")

        assert cached.peek(str(folder)).status is Status.ABSENT

    @every_cache
    def test_nor_what_was_invalidated_by_its_tag(self, alias, worker, broker, folder):
        cached = ResultCache(tasks.told, cache=alias, tags=("of:{folder}",))
        cached.get_or_dispatch(str(folder))
        folder.wait_for_runs(1)
        cached.invalidate_tag(f"of:{folder}")

        folder.touch("go-1", "go-2")
        harness.wait_until(lambda: all_is_done(broker), 30, "the run has ended")

        assert not cached.peek(str(folder)).has_value
        assert cached.get_or_dispatch(str(folder)).dispatched
        assert wait_for_status(cached, folder, "hit").value == {"run": 2}


class TestARunWhoseWorkerIsGone:
    @pytest.fixture
    def broker(self):
        """One that soon delivers again what nobody has acknowledged."""
        with harness.open_broker("redis") as broker:
            broker.settings["broker_transport_options"] = {"visibility_timeout": 4, "unacked_restore_throttle": 1}
            yield broker

    def test_a_killed_worker_is_noticed_and_the_message_that_comes_again_does_not_overwrite(
        self, broker, start, own_queue, folder
    ):
        worker = start()
        cached = ResultCache(tasks.told, lock_timeout=LEASE, options={"queue": own_queue})
        old = cached.get_or_dispatch(str(folder))
        folder.wait_for_runs(1)
        os.killpg(worker.pid, signal.SIGKILL)

        lost = wait_for_status(cached, folder, "lost", timeout=30)
        assert lost.task_id == old.task_id
        patient = ResultCache(tasks.told, lock_timeout=60, options={"queue": own_queue})
        new = patient.get_or_dispatch(str(folder))
        assert (new.dispatched, new.task_id == old.task_id) == (True, False)

        start("threads", concurrency=2)
        assert set(folder.wait_for_runs(3)[1:]) == {old.task_id, new.task_id}
        folder.touch("go-2", "go-3")
        state = wait_for_status(cached, folder, "hit")
        harness.wait_until(lambda: all_is_done(broker, own_queue), 30, "both have ended")
        assert state.value_id == cached.peek(str(folder)).value_id == new.task_id

    def test_one_whose_message_was_acknowledged_is_sent_again(self, start, own_queue, folder):
        worker = start()
        cached = ResultCache(tasks.early, lock_timeout=LEASE, options={"queue": own_queue})
        cached.get_or_dispatch(str(folder))
        folder.wait_for_runs(1)
        os.killpg(worker.pid, signal.SIGKILL)
        wait_for_status(cached, folder, "lost", timeout=30)

        folder.touch("go-2")
        start("threads")
        assert cached.get_or_dispatch(str(folder)).dispatched
        assert wait_for_status(cached, folder, "hit").value == {"run": 2}

    def test_a_worker_that_was_frozen_does_not_overwrite_when_it_thaws(self, broker, start, own_queue, folder):
        frozen = start()
        cached = ResultCache(tasks.early, lock_timeout=LEASE, options={"queue": own_queue})
        old = cached.get_or_dispatch(str(folder))
        folder.wait_for_runs(1)
        os.killpg(frozen.pid, signal.SIGSTOP)
        try:
            wait_for_status(cached, folder, "lost", timeout=30)
            start(queue=broker.queue)
            elsewhere = ResultCache(tasks.early, lock_timeout=60)
            new = elsewhere.get_or_dispatch(str(folder))
            folder.wait_for_runs(2)
            folder.touch("go-2")
            wait_for_status(cached, folder, "hit")
            folder.touch("go-1")
        finally:
            os.killpg(frozen.pid, signal.SIGCONT)

        frozen.wait_for_log(f"{old.task_id}] succeeded")
        state = cached.peek(str(folder))
        assert (state.value, state.value_id) == ({"run": 2}, new.task_id)


def test_a_message_that_is_gone_is_noticed_and_sent_again(broker, own_queue, folder):
    cached = ResultCache(tasks.idle, lock_timeout=0.5, options={"queue": own_queue})
    first = cached.get_or_dispatch(str(folder))
    assert broker.message_count(own_queue) == 1
    with broker.connection() as connection:
        connection.default_channel.queue_purge(own_queue)

    assert wait_for_status(cached, folder, "lost").task_id == first.task_id

    again = cached.get_or_dispatch(str(folder))
    assert (again.dispatched, again.status, broker.message_count(own_queue)) == (True, Status.PENDING, 1)


def test_a_run_that_takes_longer_than_lease_and_lock_timeout_is_not_sent_twice(
    broker, producer, worker, start, tmp_path
):
    """On every pool at the same time."""
    pools = ("prefork", "solo", "gevent")
    for pool in pools:
        start(pool, queue=broker.queue_named(pool))
    places = {pool: Folder(tmp_path / pool) for pool in (*pools, "threads")}
    cached = {
        pool: ResultCache(
            tasks.told, lock_timeout=LEASE, options={} if pool == "threads" else {"queue": broker.queue_named(pool)}
        )
        for pool in places
    }
    for pool, place in places.items():
        assert cached[pool].get_or_dispatch(str(place)).dispatched
    for place in places.values():
        place.wait_for_runs(1)

    began = time.monotonic()

    def look():
        for pool, place in places.items():
            state = cached[pool].get_or_dispatch(str(place))
            assert (state.status, state.dispatched) == (Status.RUNNING, False), pool
        return time.monotonic() - began > 2.5 * LEASE

    harness.wait_until(look, 60, "more than twice the lease has passed", interval=0.1)
    for pool, place in places.items():
        place.touch("go-1")
        assert wait_for_status(cached[pool], place, "hit").value == {"run": 1}


class TestDeadLetters:
    def test_requeued_by_an_operator_it_becomes_a_hit_with_the_same_id(self, worker, folder):
        cached = ResultCache(tasks.failing)
        sent = cached.get_or_dispatch(str(folder))
        state = wait_for_status(cached, folder, "failed")
        assert (state.task_id, state.dead_letter, state.error.kind) == (sent.task_id, "dead", "LookupError")
        assert state.error.message == "the data are not there yet"
        assert not cached.get_or_dispatch(str(folder)).dispatched
        folder.touch("mended")

        assert requeue(DeadLetter.objects.filter(task_id=sent.task_id)).requeued == 1

        state = cached.get_or_dispatch(str(folder))
        assert (state.status in (Status.PENDING, Status.RUNNING), state.dispatched) == (True, False)
        folder.wait_for_runs(2)
        assert cached.peek(str(folder)).status is Status.RUNNING
        folder.touch("go")
        state = wait_for_status(cached, folder, "hit")
        assert (state.value_id, state.value) == (sent.task_id, {"run": 2, "number": 1})

    def test_with_other_arguments_it_makes_no_value_of_the_call_as_it_was(self, worker, broker, folder, settings):
        settings.TASKKIT = {"EDITABLE": ["cached.*"]}
        cached = ResultCache(tasks.failing)
        sent = cached.get_or_dispatch(str(folder))
        wait_for_status(cached, folder, "failed")
        folder.touch("mended", "go")
        letter = DeadLetter.objects.get(task_id=sent.task_id)

        edit(letter, [str(folder)], {"number": 2}, by="ann", app=current_app._get_current_object())
        requeue(letter)
        harness.wait_until(lambda: DeadLetter.objects.filter(status="recovered").exists(), 60, "it has recovered")

        state = cached.peek(str(folder))
        assert (state.has_value, state.status) == (False, Status.FAILED)
        assert cached.peek(str(folder), 2).status is Status.ABSENT


def test_a_retry_says_when_it_comes_and_keeps_the_progress(worker, folder):
    cached = ResultCache(tasks.flaky)
    sent = cached.get_or_dispatch(str(folder))

    state = wait_for_status(cached, folder, "retrying")

    assert (state.task_id, state.attempt) == (sent.task_id, 1)
    assert 1 <= state.retry_after <= 5
    assert state.progress == Progress(done=5, total=10, message="half of it")
    folder.wait_for_runs(2)
    state = cached.get_or_dispatch(str(folder))
    assert (state.status, state.attempt, state.progress.done, state.dispatched) == (Status.RUNNING, 2, 5, False)
    folder.touch("go")
    assert wait_for_status(cached, folder, "hit").value_id == sent.task_id


@pytest.mark.parametrize(
    ("name", "alias", "said"),
    [("large", "memcached", "too large"), *(("odd", alias, "pickle") for alias in SHARED)],
)
def test_a_value_that_the_cache_does_not_take_is_a_failure_that_says_so_and_is_not_run_again(
    name, alias, said, worker, broker, folder
):
    cached = ResultCache(getattr(tasks, name), cache=alias)
    cached.get_or_dispatch(str(folder))

    state = wait_for_status(cached, folder, "failed")

    assert said in state.error.message
    harness.wait_until(lambda: all_is_done(broker), 30, "the run has ended")
    assert not any(cached.get_or_dispatch(str(folder)).dispatched for _ in range(3))
    assert len(folder.runs()) == 1


class TestOtherEnds:
    """None of them is waited for for ever."""

    def test_of_a_process_that_is_killed(self, start, own_queue, producer, tmp_path):
        start(concurrency=2)
        late, early = Folder(tmp_path / "late"), Folder(tmp_path / "early")
        redelivered = ResultCache(tasks.deadly, options={"queue": own_queue})
        lost = ResultCache(tasks.deadly_early, options={"queue": own_queue})
        first = redelivered.get_or_dispatch(str(late))
        late.wait_for_runs(1)
        late.touch("die")
        state = wait_for_status(redelivered, late, "hit", "failed")
        assert (state.status, state.value, state.value_id) == (Status.HIT, {"run": 2}, first.task_id)

        lost.get_or_dispatch(str(early))
        early.wait_for_runs(1)
        early.touch("die")
        state = wait_for_status(lost, early, "failed")
        assert (state.dead_letter, state.error.kind.rpartition(".")[2]) == ("dead", "WorkerLostError")
        assert not lost.get_or_dispatch(str(early)).dispatched

    def test_of_tasks_that_are_stopped_refused_or_never_run(self, start, own_queue, producer, tmp_path):
        worker = start()
        places = {}

        def send(task, **options):
            place = places[task.name] = Folder(tmp_path / task.name)
            cached = ResultCache(task, options={"queue": own_queue, **options})
            return cached, place, cached.get_or_dispatch(str(place))

        @producer.task(name="cached.unknown", shared=False)
        def unknown(folder): ...

        blocking, blocker, _ = send(tasks.told)
        blocker.wait_for_runs(1)
        *revoked, state = send(tasks.idle)
        producer.control.revoke(state.task_id)
        worker.wait_for_log("flagged as revoked")
        soon = time.time() + 1
        *expired, _ = send(tasks.quick, expires=1)
        *missing, _ = send(unknown)
        *limited, _ = send(tasks.limited)
        *rejected, _ = send(tasks.rejecting)
        *left, _ = send(tasks.leaving)
        harness.wait_until(lambda: time.time() > soon, 30, "its time is up")
        blocker.touch("go-1")

        wait_for_status(blocking, blocker, "hit")
        told = {
            name: wait_for_status(*pair, "failed").error.kind.rpartition(".")[2]
            for name, pair in {
                "revoked": revoked,
                "expired": expired,
                "missing": missing,
                "limited": limited,
                "rejected": rejected,
                "left": left,
            }.items()
        }
        assert told == {
            "revoked": "TaskRevokedError",
            "expired": "TaskRevokedError",
            "missing": "NotRegistered",
            "limited": "TimeLimitExceeded",
            "rejected": "Reject",
            "left": "WorkerLostError",
        }
