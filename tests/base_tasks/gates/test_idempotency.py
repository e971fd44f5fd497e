"""One of all runs with the same key: the gate on its own, over a store whose time the test makes."""

from __future__ import annotations

import gc
import os
import time
from dataclasses import replace
from datetime import timedelta
from threading import Event, Thread

import pytest
from celery.app.task import Context
from django.db import connections
from django.utils import timezone

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.base_tasks.gates import Answer, Outcome, Run, Wait, idempotency
from django_taskkit.base_tasks.gates.claims import LARGEST_RESULT, Claim, decode, take
from django_taskkit.base_tasks.gates.idempotency import LATENESS, LEASE, LONGEST_WAIT, WINDOW, gate_of
from django_taskkit.envelope import GENERATION_HEADER
from django_taskkit.exceptions import ConfigurationError, StoreError
from django_taskkit.models import DeadLetter
from django_taskkit.stores.pausing import Warnings
from django_taskkit.stores.renewal import AGAIN, LINGER, Duties, Duty, Renewer, renewer

pytestmark = pytest.mark.django_db

DAY = 86_400.0


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def pass_(self, seconds):
        self.now += seconds


class MemoryStore:
    """Facts in a dict, forgotten when the test's time says so."""

    def __init__(self, clock):
        self.clock = clock
        self.facts = {}
        self.is_away = False
        self.swaps = self.trips = 0

    def read(self, key):
        self.trips += 1
        return self._read(key)

    def _read(self, key):
        if self.is_away:
            raise StoreError(f"{key} is out of reach")
        value, until = self.facts.get(key, (None, 0.0))
        return value if self.clock() < until else None

    def swap(self, key, old, new, *, ttl):
        self.trips += 1
        if self._read(key) != old:
            return False
        self.swaps += 1
        self.facts.pop(key, None)
        if new is not None:
            self.facts[key] = (new, self.clock() + ttl)
        return True


class Runs:
    """Runs of one task under one gate, as the engine makes them."""

    def __init__(self, task, store, clock):
        self.task = task
        self.clock, self.store = clock, store
        self.duties = Duties(clock)  # without a thread: its time is not the test's
        self.going_on = []
        self.gate = replace(gate_of(task), store=lambda: store, duties=self.duties)

    def run(self, task_id, *args, retries=0, generation=0, **kwargs):
        headers = {GENERATION_HEADER: generation} if generation else {}
        request = Context(id=task_id, retries=retries, **headers)
        return Run(task=self.task, request=request, args=args or (7,), kwargs=kwargs)

    def enter(self, task_id, *args, **options):
        """Return the run if it may go on, else the gate's answer."""
        run = self.run(task_id, *args, **options)
        self.going_on.append(run)
        return self.gate.enter(run) or run

    def leave(self, run, outcome=Outcome.SUCCEEDED, **options):
        return self.gate.leave(run, outcome, **options)

    def is_held(self, *args):
        """Say whether a duplicate with an id that was never seen has to wait."""
        other = self.run("whoever", *args)
        try:
            answer = self.gate.enter(other)
        except Wait:
            return True
        if answer is None:
            self.gate.leave(other, Outcome.ENDED)
        return False

    def pass_(self, seconds):
        """Let time pass for a worker that lives."""
        while seconds > 0:
            step = min(seconds, 1.0)
            self.clock.pass_(step)
            self.duties.do_due()
            seconds -= step


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(autouse=True)
def nothing_said_before(monkeypatch, clock):
    monkeypatch.setattr(idempotency, "_warnings", Warnings(clock))


@pytest.fixture
def store(clock):
    return MemoryStore(clock)


@pytest.fixture
def make(station, store, clock):
    def make(**options):
        options = {"idempotency_key": "order_id", **options}

        @station.app.task(base=BaseTaskWithRetry, name="shop.charge", **options)
        def charge(order_id, note=""): ...

        return Runs(station.app.tasks[charge.name], store, clock)

    return make


@pytest.fixture
def runs(make):
    return make()


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def waits(runs, task_id, *args, **options):
    with pytest.raises(Wait) as caught:
        runs.enter(task_id, *args, **options)
    return caught.value


# Who may run


def test_the_first_runs_and_its_duplicate_waits(runs):
    assert isinstance(runs.enter("first"), Run)

    wait = waits(runs, "second")

    assert str(wait) == "task first has its idempotency key"
    assert wait.base < wait.cap == LONGEST_WAIT


def test_calls_with_different_keys_do_not_meet(runs):
    assert isinstance(runs.enter("first", 7), Run)
    assert isinstance(runs.enter("second", 8), Run)


def test_a_call_without_a_key_always_runs(make, store):
    runs = make(idempotency_key=lambda order_id: None)

    assert isinstance(runs.enter("first"), Run)
    assert isinstance(runs.enter("second"), Run)
    assert not store.facts


def test_no_argument_is_seen_where_a_wait_is_logged(runs):
    runs.enter("first", "4000-1234")

    assert "4000-1234" not in str(waits(runs, "second", "4000-1234"))


def test_a_duplicate_after_success_is_answered_with_the_result(runs):
    runs.leave(runs.enter("first"), result={"paid": [1, None, "x"]})

    assert runs.enter("second") == Answer({"paid": [1, None, "x"]})


def test_a_duplicate_that_waited_is_answered_as_well(runs):
    first = runs.enter("first")
    waits(runs, "second")
    runs.leave(first, result=3)

    assert runs.enter("second") == Answer(3)


@pytest.mark.parametrize("result", [b"bytes", timezone.now(), 1.5, None, {"__type__": "shop", "__value__": 1}])
def test_results_are_those_that_celery_itself_brings_through_json(runs, result):
    runs.leave(runs.enter("first"), result=result)

    kept = None if isinstance(result, dict) else result
    assert runs.enter("second") == Answer(kept)


@pytest.mark.parametrize("result", [object(), {1, 2}, "x" * LARGEST_RESULT])
def test_a_result_that_is_too_large_or_nothing_for_json_is_none_to_duplicates(runs, result):
    runs.leave(runs.enter("first"), result=result)

    assert runs.enter("second") == Answer(None)


def test_after_the_window_the_key_is_free(make, clock):
    runs = make(idempotency_window=timedelta(minutes=10))
    runs.leave(runs.enter("first"))

    clock.pass_(599)
    assert isinstance(runs.enter("second"), Answer)
    clock.pass_(2)
    assert isinstance(runs.enter("second"), Run)


def test_the_window_is_a_day_unless_the_task_says_otherwise(runs, clock):
    runs.leave(runs.enter("first"))

    clock.pass_(DAY - 1)
    assert isinstance(runs.enter("second"), Answer)
    clock.pass_(2)
    assert isinstance(runs.enter("second"), Run)


@pytest.mark.parametrize("window", [0, None, timedelta(0)])
def test_without_a_window_duplicates_run_one_after_the_other(make, window):
    runs = make(idempotency_window=window)
    first = runs.enter("first")

    waits(runs, "second")
    runs.leave(first, result=3)
    assert isinstance(runs.enter("second"), Run)


# The same message again


@pytest.mark.parametrize("again", [{"retries": 1}, {}, {"generation": 1}], ids=["retry", "redelivery", "requeued"])
def test_the_holder_passes_whenever_its_message_comes_again(runs, again):
    runs.enter("first")

    assert isinstance(runs.enter("first", **again), Run)


@pytest.mark.parametrize("outcome", [Outcome.RETRIED, Outcome.SNOOZED])
def test_a_holder_that_waits_for_its_next_run_keeps_its_key(runs, clock, outcome):
    runs.leave(runs.enter("first"), outcome, delay=3600)

    clock.pass_(3600 + LEASE + LATENESS - 1)
    waits(runs, "second")
    assert isinstance(runs.enter("first", retries=1), Run)


def test_a_retry_that_never_comes_back_does_not_hold_the_key_for_ever(runs, clock):
    runs.leave(runs.enter("first"), Outcome.RETRIED, delay=3600)

    clock.pass_(3600 + LEASE + LATENESS + 1)

    assert isinstance(runs.enter("second"), Run)


@pytest.mark.parametrize("outcome", [Outcome.EXHAUSTED, Outcome.DIED, Outcome.ENDED])
def test_a_run_that_ends_otherwise_frees_the_key(runs, outcome):
    runs.leave(runs.enter("first"), outcome)

    assert isinstance(runs.enter("second"), Run)


def test_a_message_delivered_again_after_its_success_is_answered(runs):
    """Killed after the body and before the acknowledgement: its work is done."""
    runs.leave(runs.enter("first"), result=3)

    assert runs.enter("first") == Answer(3)


def test_a_message_delivered_again_runs_again_if_its_result_is_not_known(runs):
    runs.leave(runs.enter("first"), result=object())

    assert isinstance(runs.enter("first"), Run)


def test_a_task_that_was_done_and_is_requeued_runs_again(runs):
    runs.leave(runs.enter("first"), result=3)

    assert isinstance(runs.enter("first", generation=1), Run)


# The lease


def test_a_key_is_renewed_as_long_as_its_run_goes_on(runs):
    runs.enter("first")

    runs.pass_(10 * LEASE)

    assert runs.is_held()


def test_a_holder_that_is_killed_frees_its_key_after_the_lease(runs, clock):
    runs.enter("first")

    clock.pass_(LEASE - 1)
    waits(runs, "second")
    clock.pass_(2)
    assert isinstance(runs.enter("second"), Run)


def test_a_holder_killed_and_delivered_again_goes_on_at_once(runs):
    runs.enter("first")

    assert isinstance(runs.enter("first"), Run)


def test_a_run_that_has_ended_is_renewed_no_more(runs):
    run = runs.enter("first")
    runs.pass_(LEASE)
    runs.leave(run, Outcome.DIED)
    runs.enter("second")

    runs.pass_(LEASE / 2)

    assert not isinstance(runs.enter("second"), Answer)
    waits(runs, "first")


def test_a_run_whose_request_is_gone_is_renewed_no_more(runs):
    """Whatever happened to it, nobody will say that it has ended."""
    runs.enter("first")
    runs.going_on.clear()
    gc.collect()

    runs.pass_(2 * LEASE)

    assert not runs.is_held()


def test_a_holder_that_was_taken_over_can_not_change_what_came_after_it(make, clock, caplog):
    runs = make(idempotency_lease=10)
    slow = runs.enter("slow")
    clock.pass_(11)  # it stood still, and so did its renewals
    second = runs.enter("second")

    runs.leave(slow, result="of the slow one")
    assert "slow] has ended, and its idempotency key was no longer its own" in caplog.text
    waits(runs, "third")
    runs.leave(second, result="of the second")
    assert runs.enter("third") == Answer("of the second")


@pytest.mark.parametrize("outcome", [Outcome.RETRIED, Outcome.DIED])
def test_nor_by_a_retry_or_its_death(make, clock, outcome):
    runs = make(idempotency_lease=10)
    slow = runs.enter("slow")
    clock.pass_(11)
    runs.enter("second")

    runs.leave(slow, outcome, delay=60)

    assert str(waits(runs, "third")) == "task second has its idempotency key"


def test_nor_by_going_on(make, clock):
    runs = make(idempotency_lease=10)
    runs.enter("slow")
    clock.pass_(11)
    second = runs.enter("second")
    runs.going_on.remove(second)  # its process is killed
    del second
    gc.collect()

    runs.pass_(11)

    assert not runs.is_held()


def test_a_holder_that_stood_still_and_was_not_taken_over_has_its_key_again(make, clock):
    runs = make(idempotency_lease=10)
    runs.enter("slow")
    clock.pass_(11)

    runs.duties.do_due()

    assert runs.is_held()


def test_the_older_of_two_runs_of_one_message_does_not_free_the_key_of_the_newer(runs):
    older, newer = runs.enter("first"), runs.enter("first")

    runs.leave(older, Outcome.DIED)
    assert runs.is_held()
    runs.leave(newer, Outcome.DIED)
    assert not runs.is_held()


def test_what_one_of_two_runs_of_a_message_has_done_the_other_does_not_undo(runs):
    older, newer = runs.enter("first"), runs.enter("first")

    runs.leave(older, result=3)
    runs.pass_(LEASE)
    runs.leave(newer, Outcome.DIED)

    assert runs.enter("second") == Answer(3)


def test_nothing_is_kept_on_the_task_and_threads_do_not_meet(runs):
    one, other = runs.enter("first", 7), runs.enter("second", 8)

    runs.leave(one, result=1)

    assert runs.is_held(8)
    assert runs.enter("third", 7) == Answer(1)
    runs.leave(other, Outcome.DIED)
    assert not runs.is_held(8)


# Dead holders


@pytest.fixture
def letter():
    def letter(task_id, **columns):
        return DeadLetter.objects.create(
            **{
                "task_id": task_id,
                "task_name": "shop.charge",
                "status": "dead",
                "reason": "worker_lost",
                "body": b"",
                "died_at": timezone.now(),
                **columns,
            }
        )

    return letter


@pytest.mark.parametrize("status", ["dead", "discarded", "recovered", "held"])
def test_a_holder_that_is_a_dead_letter_gives_way_at_once(runs, letter, status):
    runs.enter("first")
    letter("first", status=status)

    assert isinstance(runs.enter("second"), Run)
    assert runs.is_held()


def test_a_holder_that_was_requeued_and_runs_keeps_its_key(runs, letter):
    runs.enter("first", generation=1)
    letter("first", status="requeued", requeue_count=1)

    waits(runs, "second")


def test_a_holder_that_runs_again_before_its_row_says_so_keeps_its_key(runs, letter):
    runs.enter("first", generation=1)
    letter("first", status="dead", requeue_count=0)

    waits(runs, "second")


def test_a_holder_that_was_requeued_and_has_not_run_yet_gives_way(runs, letter):
    runs.enter("first")
    letter("first", status="requeued", requeue_count=1)

    assert isinstance(runs.enter("second"), Run)
    waits(runs, "first", generation=1)


def test_a_dead_holder_that_is_requeued_after_its_duplicate_succeeded_is_answered(runs, letter):
    runs.enter("first")
    letter("first")
    runs.leave(runs.enter("second"), result=3)

    assert runs.enter("first", generation=1) == Answer(3)


def test_of_two_that_wait_for_a_dead_holder_one_runs(runs, letter):
    runs.enter("first")
    letter("first")

    assert isinstance(runs.enter("second"), Run)
    assert str(waits(runs, "third")) == "task second has its idempotency key"


def test_who_comes_too_late_to_take_the_key_of_a_dead_holder_does_not_take_it_from_the_one_who_has():
    dead, quick, late = (Claim(holder=name) for name in ("dead", "quick", "late"))

    value, _ = take(quick, instead_of=dead)(dead.encode())
    value, answer = take(late, instead_of=dead)(value)

    assert decode(value) == answer == quick


def test_a_dead_letter_does_not_undo_what_was_done(runs, letter):
    runs.leave(runs.enter("first"), result=3)
    letter("first", reason="result_lost", body_ran=True)

    assert runs.enter("second") == Answer(3)


@pytest.mark.django_db(transaction=True)
def test_without_its_table_nothing_is_taken_for_dead(runs, caplog):
    from django.db import connection

    runs.enter("first")
    table = DeadLetter._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO {table}_away")
    try:
        waits(runs, "second")
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table}_away RENAME TO {table}")
    assert "whether task first is a dead letter can't be said" in caplog.text


# The store is away


def test_without_the_store_a_task_waits(runs, store):
    store.is_away = True

    assert str(waits(runs, "first", "4000-1234")) == "who has its idempotency key can't be said"
    store.is_away = False
    assert isinstance(runs.enter("first", "4000-1234"), Run)


def test_the_log_says_so_once_and_names_no_argument(runs, store, caplog):
    store.is_away = True

    for number in range(3):
        waits(runs, f"task-{number}", "4000-1234")

    assert caplog.text.count("can't be said (StoreError): they wait") == 1
    assert "4000-1234" not in caplog.text


def test_a_task_may_rather_run_twice_than_late(make, store):
    runs = make(idempotency_without_store="run")
    store.is_away = True

    first = runs.enter("first")
    assert isinstance(first, Run)
    store.is_away = False
    runs.pass_(LEASE / 3)
    waits(runs, "second")
    runs.leave(first, result=3)
    assert runs.enter("second") == Answer(3)


def test_a_success_that_the_store_does_not_take_is_written_down_when_it_is_back(runs, store):
    first = runs.enter("first")
    store.is_away = True
    runs.leave(first, result=3)
    runs.pass_(20)

    store.is_away = False
    runs.pass_(6)

    assert runs.enter("second") == Answer(3)


def test_a_key_that_could_not_be_freed_is_freed_when_the_store_is_back(runs, store):
    first = runs.enter("first")
    store.is_away = True
    runs.leave(first, Outcome.DIED)
    store.is_away = False
    assert runs.is_held()

    runs.pass_(6)

    assert not runs.is_held()


def test_what_is_written_late_does_not_take_a_key_from_the_next_run(runs, store, clock):
    first = runs.enter("first")
    store.is_away = True
    runs.leave(first, Outcome.RETRIED, delay=5)
    runs.pass_(10)
    store.is_away = False
    runs.leave(runs.enter("first", retries=1), Outcome.DIED)

    runs.pass_(60)

    assert not runs.is_held()


def test_renewals_go_on_when_the_store_is_back(runs, store):
    runs.enter("first")
    store.is_away = True
    runs.pass_(LEASE * 0.8)
    store.is_away = False

    runs.pass_(LEASE * 2)

    assert runs.is_held()


def test_a_renewal_that_fails_is_tried_again_within_seconds(runs, store):
    runs.enter("first")
    store.is_away = True
    runs.pass_(LEASE / 3)
    store.is_away = False
    before = store.swaps

    runs.pass_(AGAIN)

    assert store.swaps == before + 1


def test_something_else_under_the_key_does_not_lock_it(runs, store, clock):
    store.facts['taskkit:once:shop.charge:{"order_id":7}'] = (b"\xff not ours", clock() + 1000)

    assert isinstance(runs.enter("first"), Run)
    waits(runs, "second")


# What it costs


def test_a_run_takes_two_round_trips(runs, store):
    runs.leave(runs.enter("first"))

    assert (store.swaps, store.trips) == (2, 2)


def test_a_duplicate_takes_two_and_writes_nothing(runs, store):
    runs.leave(runs.enter("first"))
    store.swaps = store.trips = 0

    runs.enter("second")

    assert (store.swaps, store.trips) == (0, 2)


def test_a_task_without_a_key_has_no_gate(make, station):
    @station.app.task(base=BaseTaskWithRetry)
    def plain(): ...

    assert gate_of(station.app.tasks[plain.name]) is None


def test_options_are_read_once_and_again_when_they_change(make):
    task = make().task

    assert gate_of(task) is gate_of(task)
    assert gate_of(task).window == WINDOW.total_seconds()
    task.idempotency_window = 5
    assert gate_of(task).window == 5


# Options that make no sense


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("idempotency_window", -1, "give seconds, 0 or more, or a timedelta"),
        ("idempotency_window", "1 day", "give seconds, 0 or more, or a timedelta"),
        ("idempotency_lease", 0, "give at least 1 second"),
        ("idempotency_lease", None, "give seconds, 0 or more, or a timedelta"),
        ("idempotency_without_store", "open", "give 'wait' or 'run'"),
        ("idempotency_key", 7, "give names of arguments"),
    ],
)
def test_an_option_that_makes_no_sense_names_task_value_and_remedy(make, option, value, remedy):
    with pytest.raises(ConfigurationError) as caught:
        make(**{option: value})

    assert f"shop.charge: {option}: " in str(caught.value)
    assert repr(value) in str(caught.value)
    assert remedy in str(caught.value)


# The thread


def test_the_thread_comes_with_the_first_duty_and_goes_after_the_last(store):
    assert LINGER < LEASE, "or it would stay as long as tasks come and go"
    renewer = Renewer(linger=0.05)
    beats = []

    def beat(old):
        beats.append(1)
        return b"%d" % len(beats), True

    assert renewer.thread is None
    duty = Duty(lambda: store, "key", beat, ttl=10, every=0.01)
    renewer.add(duty)
    thread = renewer.thread
    assert thread.daemon
    until(lambda: len(beats) > 2)
    renewer.remove(duty)
    thread.join(20)
    assert not thread.is_alive()
    assert renewer.thread is None


def test_runs_that_follow_each_other_share_one_thread(store):
    renewer = Renewer()
    threads = set()
    for _ in range(3):
        duty = Duty(lambda: store, "key", lambda old: (b"x", True), ttl=60, every=20)
        renewer.add(duty)
        threads.add(renewer.thread)
        renewer.remove(duty)

    assert len(threads) == 1


def test_a_duty_that_fails_ends_neither_the_thread_nor_the_others(store):
    renewer = Renewer(linger=0.05)
    beats = []
    odd = Duty(lambda: store, "odd", lambda old: 1 / 0, ttl=10, every=0.01)
    duty = Duty(lambda: store, "key", lambda old: (None, not beats.append(1)), ttl=10, every=0.01)

    renewer.add(odd)
    renewer.add(duty)

    until(lambda: len(beats) > 2)
    renewer.remove(odd)
    renewer.remove(duty)


@pytest.mark.django_db(transaction=True)
def test_a_connection_to_the_database_that_a_store_has_opened_there_is_closed_after_each_round(store):
    renewer = Renewer(linger=0.05)
    opened, go_on = [], Event()

    def change(old):
        DeadLetter.objects.exists()
        opened.append(connections["default"])
        assert opened[0].connection is not None
        assert go_on.wait(20)
        return b"x", True

    duty = Duty(lambda: store, "key", change, ttl=60, every=0.01, once=True)
    renewer.add(duty)
    until(lambda: opened)
    thread = renewer.thread
    go_on.set()
    thread.join(20)

    assert duty.is_over
    assert opened[0] is not connections["default"]
    assert opened[0].connection is None


def test_when_a_duty_is_removed_none_of_its_changes_is_under_way(store):
    renewer = Renewer(linger=0.05)
    begun, go_on, ended = Event(), Event(), Event()

    def change(old):
        begun.set()
        assert go_on.wait(20)
        ended.set()
        return b"x", True

    duty = Duty(lambda: store, "key", change, ttl=10, every=0.01)
    renewer.add(duty)
    assert begun.wait(20)
    remover = Thread(target=renewer.remove, args=(duty,))
    remover.start()
    go_on.set()
    remover.join(20)

    assert ended.is_set()
    assert store.read("key") == b"x"


@pytest.mark.filterwarnings("ignore:This process")
def test_after_a_fork_the_child_renews_nothing_of_its_parent_and_starts_a_thread_of_its_own(runs):
    runs.enter("first")
    held = replace(runs.gate, duties=renewer)
    parent = runs.run("parent", 8)
    held.enter(parent)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        said = f"{renewer.thread} {len(renewer)}"
        child = runs.run("child", 9)
        held.enter(child)
        os.write(write, f"{said} {renewer.thread.is_alive()} {len(renewer)}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    try:
        assert os.read(read, 100) == b"None 0 True 1"
        assert renewer.thread.is_alive()
    finally:
        held.leave(parent, Outcome.DIED)
