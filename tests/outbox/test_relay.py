import json
import threading
from datetime import timedelta

import pytest
from django.db import DatabaseError, connection, connections
from django.utils import timezone
from kombu import Exchange, Queue

from django_taskkit.dlq.models import Redelivery
from django_taskkit.models import DeadLetter, OutboxLease, OutboxMessage, RelayHeartbeat
from django_taskkit.outbox import relay as relay_module
from django_taskkit.outbox.leases import LEASE, Lease
from django_taskkit.outbox.presence import RelayWatch, watch
from django_taskkit.outbox.relay import REFUSALS, Relay, Relayed
from django_taskkit.outbox.tasks import relay as relay_task

pytestmark = pytest.mark.django_db


class Clock:
    def __init__(self):
        self.now = timezone.now()

    def __call__(self):
        return self.now

    def forward(self, **by):
        self.now += timedelta(**by)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def add(station):
    @station.app.task(name="tests.add", outbox=True)
    def add(*numbers):
        return numbers

    return add


@pytest.fixture
def make(station, clock):
    return lambda name="r1", **options: Relay(station.app, name=name, clock=clock, **options)


def numbers(station):
    """The first argument of every message on the queue, in order."""
    found = []
    while (message := station.take()) is not None:
        found.append(json.loads(message.body)[0][0])
    return found


def test_messages_of_a_queue_are_sent_in_the_order_in_which_they_were_written(station, add, make):
    for number in range(7):
        add.delay(number)

    assert make().run_once() == Relayed(published=7)
    assert numbers(station) == list(range(7))
    assert not OutboxMessage.objects.exists()
    assert not OutboxLease.objects.exists()


def test_a_round_sends_a_batch_of_each_queue(station, add, make):
    for number in range(3):
        add.delay(number)
        add.apply_async((number,), queue=f"{station.queue}-other")

    relay = make(batch=2)

    assert [relay.run_once().published for _ in range(3)] == [4, 2, 0]
    assert numbers(station) == [0, 1, 2]


def test_large_messages_are_read_one_at_a_time(add, make, station, monkeypatch):
    monkeypatch.setattr(relay_module, "AT_ONCE_BYTES", 5_000)
    sizes = []
    chunks = Relay._chunks
    monkeypatch.setattr(
        Relay, "_chunks", lambda self, queue: (sizes.append(len(chunk)) or chunk for chunk in chunks(self, queue))
    )
    for size in (1_000, 1_000, 9_000, 1_000, 1_000):
        add.delay("x" * size)

    assert make().run_once().published == 5
    assert sizes == [2, 1, 2]


def test_a_queue_that_another_relay_has_is_left_to_it_until_its_lease_is_over(station, add, make, clock):
    add.delay(1)
    add.apply_async((2,), queue=f"{station.queue}-other")
    lease = Lease(station.queue, "r2", clock)
    assert lease.take()

    assert make().run_once().published == 1
    clock.forward(seconds=LEASE.total_seconds() + 1)
    assert make().run_once().published == 1
    assert numbers(station) == [1]
    assert not lease.keep()


def test_relays_of_one_name_do_not_share_a_lease(station, add, make, monkeypatch):
    add.delay(1)
    first, second = make("task@host"), make("task@host")
    meanwhile = []
    send = Relay._send_one

    def send_one(self, *args):
        if self is first:
            meanwhile.append(second.run_once().published)
        return send(self, *args)

    monkeypatch.setattr(Relay, "_send_one", send_one)

    assert first.run_once().published == 1
    assert meanwhile == [0]


def test_a_lease_is_kept_alive_while_its_holder_works(station, clock):
    lease, rival = Lease(station.queue, "r1", clock), Lease(station.queue, "r2", clock)
    assert lease.take()
    for _ in range(5):
        clock.forward(seconds=40)
        assert lease.keep()
        assert not rival.take()
    lease.release()
    assert rival.take()


@pytest.mark.django_db(transaction=True)
def test_two_relays_at_once_send_each_message_once_and_in_order(station, add):
    queues = [station.queue, f"{station.queue}-b", f"{station.queue}-c"]
    for number in range(40):
        for queue in queues:
            add.apply_async((number,), queue=queue)
    failures = []

    def work(name):
        try:
            relay = Relay(station.app, name=name, batch=5)
            while OutboxMessage.objects.exists():
                failures.extend(relay.run_once().errors)
        except Exception as exc:
            failures.append(exc)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(f"r{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert failures == []
    for queue in queues:
        station.queue = queue
        assert numbers(station) == list(range(40))
    assert not OutboxLease.objects.exists()


def test_an_expired_message_is_sent_all_the_same_so_that_a_worker_records_it(station, add, make, clock):
    add.apply_async((1,), expires=1)
    clock.forward(hours=1)

    assert make().run_once().published == 1
    assert station.take().headers["expires"]


def test_a_message_goes_through_the_exchange_that_its_sender_named(station, add, make):
    exchange = Exchange(f"{station.queue}-all", type="fanout")
    bound = [Queue(f"{station.queue}-{number}", exchange, routing_key="") for number in range(2)]
    station.app.conf.task_queues = [*bound, Queue(station.queue)]
    for queue in bound:
        queue(station._channel).declare()

    add.apply_async((1,), queue=bound[0].name)
    add.apply_async((2,), exchange=exchange, routing_key="any")
    assert make().run_once().published == 2

    for queue in bound:
        station.queue = queue.name
        assert sorted(numbers(station)) == [1, 2]


@pytest.mark.django_db(transaction=True)
def test_what_was_sent_is_not_sent_again_when_the_database_fails_to_delete_it(station, add, make):
    for number in range(3):
        add.delay(number)
    relay = make()

    def refuse_deletes(execute, sql, params, many, context):
        if sql.startswith("DELETE") and "relayheartbeat" not in sql:
            raise DatabaseError("away")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(refuse_deletes):
        assert relay.run_once().errors
    assert OutboxMessage.objects.count() == 3
    relay.run_once()

    assert not OutboxMessage.objects.exists()
    assert numbers(station) == [0, 1, 2]


def test_a_round_ends_when_the_broker_is_away_and_nothing_is_lost(unreachable, add, make):
    for number in range(3):
        add.delay(number)

    done = make().run_once()

    assert done.published == 0
    assert done.errors[0].startswith("outbox: the broker can't be reached")
    assert [row.attempts for row in OutboxMessage.objects.all()] == [0, 0, 0]
    assert not OutboxLease.objects.exists()


@pytest.fixture
def refusing(monkeypatch, station):
    """A broker that refuses the messages with 13 in them."""
    channel = type(station._channel)
    publish = channel.basic_publish

    def basic_publish(self, message, *args, **kwargs):
        if "13" in json.dumps(message["headers"]["argsrepr"]):
            raise RuntimeError("bad luck")
        return publish(self, message, *args, **kwargs)

    monkeypatch.setattr(channel, "basic_publish", basic_publish)


def test_a_message_that_the_broker_refuses_does_not_hold_up_its_queue(refusing, station, add, make, clock):
    for number in (12, 13, 14):
        add.delay(number)

    done = make().run_once()

    assert (done.published, done.refused) == (2, 1)
    assert numbers(station) == [12, 14]
    row = OutboxMessage.objects.get()
    assert row.attempts == 1
    assert "bad luck" in row.last_error
    assert make().run_once() == Relayed()
    clock.forward(seconds=11)
    assert make().run_once().refused == 1


def test_a_message_that_is_refused_ten_times_is_a_dead_letter(refusing, station, add, make, clock):
    result = add.apply_async((13,), headers={"tenant": "t1"})
    for _ in range(REFUSALS - 1):
        assert make().run_once().refused == 1
        clock.forward(hours=1)

    assert make().run_once() == Relayed(dead=1)
    assert not OutboxMessage.objects.exists()
    letter = DeadLetter.objects.get()
    assert (letter.task_id, letter.reason, letter.queue) == (result.id, "publish_failed", station.queue)
    assert letter.headers["tenant"] == "t1"
    assert "bad luck" in letter.exception_message


def test_an_error_of_one_part_does_not_keep_the_others_from_their_work(add, make, monkeypatch):
    from django_taskkit.dlq import intake, spool

    def broken(app, limit):
        raise RuntimeError("spool")

    monkeypatch.setattr(spool, "drain", broken)
    monkeypatch.setattr(intake, "drain", lambda app, limit: 3)
    add.delay(1)

    assert make().run_once() == Relayed(published=1, taken_in=3, errors=("spool: RuntimeError: spool",))


@pytest.fixture
def looks(monkeypatch):
    """Which of spool and intake were looked into, in order, with what each brings in the next time."""
    from django_taskkit.dlq import intake, spool

    seen, found = [], {"spool": 0, "intake": 0}

    def look(name):
        seen.append(name)
        count, found[name] = found[name], 0
        return count

    monkeypatch.setattr(spool, "drain", lambda app, limit: look("spool"))
    monkeypatch.setattr(intake, "drain", lambda app, limit: look("intake"))
    return seen, found


def test_dead_letters_elsewhere_are_looked_for_every_5_seconds(make, clock, looks):
    seen, _found = looks
    relay = make()
    for _second in range(10):
        relay.run_once()
        clock.forward(seconds=1)

    assert seen == ["spool", "intake"] * 2


def test_and_at_once_again_where_there_were_some(make, looks):
    seen, found = looks
    relay = make()
    found["intake"] = 3

    assert [relay.run_once().taken_in for _round in range(3)] == [3, 0, 0]
    assert seen == ["spool", "intake", "intake"]


def test_also_when_the_clock_was_set_back(make, clock, looks):
    seen, _found = looks
    relay = make()
    relay.run_once()
    clock.forward(hours=-2)
    relay.run_once()

    assert seen == ["spool", "intake"] * 2


def test_a_relay_forgets_how_often_messages_were_started_some_days_ago(make, clock):
    def count(key, **ago):
        Redelivery.objects.create(key=key, starts=2, at=timezone.now() - timedelta(**ago))

    relay = make()
    count("old", days=8)
    count("new", days=6)
    relay.run_once()
    assert {row.key for row in Redelivery.objects.all()} == {"new"}

    count("old", days=8)
    clock.forward(minutes=4)
    relay.run_once()
    assert Redelivery.objects.count() == 2
    clock.forward(minutes=1)
    relay.run_once()
    assert Redelivery.objects.count() == 1


def test_a_round_ends_with_the_message_that_is_being_sent_when_the_relay_is_stopped(station, add, make, monkeypatch):
    for number in range(5):
        add.delay(number)
        add.apply_async((number,), queue=f"{station.queue}-other")
    stop = threading.Event()
    send = Relay._send_one

    def send_one(self, row, *args):
        stop.set()
        return send(self, row, *args)

    monkeypatch.setattr(Relay, "_send_one", send_one)
    rounds = []
    make().run(stop, on_round=rounds.append)

    assert rounds == [Relayed(published=1)]
    assert OutboxMessage.objects.count() == 9
    assert not OutboxLease.objects.exists()


def test_a_message_keeps_its_place_when_the_connection_breaks_before_it(station, add, make, monkeypatch):
    for number in range(4):
        add.delay(number)
    channel = type(station._channel)
    publish = channel.basic_publish
    tried = []

    def break_once(self, message, *args, **kwargs):
        tried.append(message)
        if len(tried) == 2:
            raise ConnectionResetError("the broker was restarted")
        return publish(self, message, *args, **kwargs)

    monkeypatch.setattr(channel, "basic_publish", break_once)

    assert make().run_once() == Relayed(published=4)
    assert numbers(station) == [0, 1, 2, 3]


def test_a_message_that_breaks_every_connection_is_refused(station, add, make, monkeypatch):
    for number in (12, 13, 14):
        add.delay(number)
    channel = type(station._channel)
    publish = channel.basic_publish

    def break_on_13(self, message, *args, **kwargs):
        if "13" in json.dumps(message["headers"]["argsrepr"]):
            raise ConnectionResetError("too much for me")
        return publish(self, message, *args, **kwargs)

    monkeypatch.setattr(channel, "basic_publish", break_on_13)

    done = make().run_once()

    assert (done.published, done.refused, done.errors) == (2, 1, ())
    assert numbers(station) == [12, 14]


def test_a_broker_that_confirms_nothing_refuses_nothing(station, add, make, monkeypatch):
    """As RabbitMQ does while an alarm of its memory or disk lasts, which may be for hours."""
    for number in range(3):
        add.delay(number)

    def time_out(self, message, *args, **kwargs):
        raise TimeoutError("no confirmation")

    monkeypatch.setattr(type(station._channel), "basic_publish", time_out)
    relay = make()

    for _ in range(12):
        done = relay.run_once()
        assert (done.published, done.refused, len(done.errors)) == (0, 0, 1)

    assert [row.attempts for row in OutboxMessage.objects.all()] == [0, 0, 0]


def test_a_relay_shows_that_it_is_alive(add, make, clock):
    relay = make("r1")
    relay.run_once()
    first = RelayHeartbeat.objects.get()
    clock.forward(seconds=5)
    relay.run_once()
    assert RelayHeartbeat.objects.get().seen_at == first.seen_at
    clock.forward(seconds=6)
    relay.run_once()
    beat = RelayHeartbeat.objects.get()
    assert beat.seen_at > first.seen_at
    assert beat.started_at == first.started_at
    assert watch.is_alive()


def test_a_relay_forgets_those_that_are_long_gone(make, clock):
    make("old").run_once()
    clock.forward(days=2)
    make("new").run_once()

    assert [beat.name for beat in RelayHeartbeat.objects.all()] == ["new"]


def test_whether_a_relay_is_alive_is_asked_at_most_every_30_seconds(make, django_assert_num_queries):
    now = [0.0]
    watching = RelayWatch(clock=lambda: now[0])
    assert not watching.is_alive()
    make().run_once()
    with django_assert_num_queries(0):
        assert not watching.is_alive()
    now[0] = 31
    assert watching.is_alive()


def test_waiting_tells_how_many_are_due_and_since_when(add, make, clock):
    assert make().waiting() == (0, 0.0)
    add.delay(1)
    add.delay(2)
    OutboxMessage.objects.filter(pk=OutboxMessage.objects.first().pk).update(due_at=clock.now + timedelta(hours=1))
    clock.forward(seconds=30)

    count, oldest = make().waiting()

    assert count == 1
    assert 25 < oldest <= 31


@pytest.mark.django_db(transaction=True)
def test_run_goes_on_whatever_the_database_does_and_ends_when_it_is_told(add, make, monkeypatch):
    add.delay(1)
    stop = threading.Event()
    relay = make()
    rounds = []

    def broken(execute, sql, params, many, context):
        raise DatabaseError("the database is away")

    def on_round(done):
        rounds.append(done)
        if len(rounds) == 1:
            wrapper.__exit__(None, None, None)
        if done.published or len(rounds) == 20:
            stop.set()

    wrapper = connection.execute_wrapper(broken)
    wrapper.__enter__()
    relay.run(stop, interval=0.01, on_round=on_round)

    assert "the database is away" in rounds[0].errors[0]
    assert rounds[-1].published == 1


def test_the_task_sends_until_nothing_is_left(station, add, monkeypatch):
    for number in range(250):
        add.delay(number)

    assert relay_task() == 250
    assert station.waiting() == 250
    assert relay_task.dead_letter is False


def test_the_task_is_known_to_every_worker_without_autodiscovery(station):
    assert "taskkit.relay" in station.app.tasks
