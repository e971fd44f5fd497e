"""The durable filesystem transport with kombu alone: real files, real processes, no worker."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest
from django.core.exceptions import ImproperlyConfigured
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.exceptions import ChannelError
from kombu.utils.json import dumps, loads

from django_taskkit.transports import filesystem

TRANSPORT = "django_taskkit.transports.filesystem:Transport"

PRELUDE = f"""
import os, signal, sys, time
from kombu import Connection
channel = Connection("filesystem://", transport={TRANSPORT!r},
                     transport_options={{"folder": sys.argv[1], "fsync": False}}).default_channel
"""


@contextmanager
def connect(folder, **options):
    options = {"folder": folder, "fsync": False, "polling_interval": 0.01, **options}
    with Connection("filesystem://", transport=TRANSPORT, transport_options=options) as connection:
        yield connection


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "broker"


@pytest.fixture
def channel(folder):
    with connect(folder) as connection:
        yield connection.default_channel


@pytest.fixture
def run(folder):
    """Runs Python code in other processes, which share the broker's folder and end with the test."""
    processes = []

    def start(code):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def send(channel, body, queue="tasks", **properties):
    Producer(channel).publish(body, exchange="", routing_key=queue, serializer="json", **properties)


def drain(channel, queue="tasks", ack=True):
    """All bodies that wait in a queue, in the order in which they arrive."""
    bodies = []
    while (message := channel.basic_get(queue)) is not None:
        bodies.append(loads(message.body))
        if ack:
            message.ack()
    return bodies


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.005)
    raise AssertionError(f"{condition} did not become true within {seconds} s")


# -- choosing it


def test_a_missing_folder_is_named_together_with_the_remedy():
    with pytest.raises(ImproperlyConfigured, match='add "folder" to broker_transport_options'):
        Connection("filesystem://", transport=TRANSPORT).connect()


def test_the_transport_option_wins_over_the_scheme_of_the_url(folder):
    with connect(folder) as connection:
        assert isinstance(connection.transport, filesystem.Transport)
        assert isinstance(connection.clone().transport, filesystem.Transport)


def test_on_windows_the_import_says_what_to_use_instead(folder):
    code = "import os; os.name = 'nt'; import django_taskkit.transports.filesystem"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert "which Windows lacks: use a Redis or RabbitMQ broker_url" in done.stderr


def test_all_folders_are_open_to_their_owner_only(channel, folder):
    send(channel, 1)
    message = channel.basic_get("tasks")

    modes = {path.stat().st_mode & 0o077 for path in [folder, *folder.rglob("*")]}

    assert message is not None
    assert modes == {0}


def test_the_folders_of_the_stock_transport_lie_in_the_one_folder(channel, folder):
    assert channel.data_folder_in == channel.data_folder_out == folder / "ready"
    assert channel.control_folder == folder / "control"
    assert channel.processed_folder == folder / "processed"


# -- sending


def test_a_message_that_is_still_being_written_is_invisible(channel, folder):
    (folder / "tmp" / "half").write_text('{"body": "aGFs')

    assert channel.basic_get("tasks") is None
    assert channel._size("tasks") == 0


def test_a_sent_message_is_on_the_disk_before_the_send_returns(folder, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)

    with connect(folder, fsync=True) as connection:
        send(connection.default_channel, 1)

    queue = str(folder / "ready" / "tasks")
    assert synced[0] == str(folder / "ready"), "the new queue"
    assert synced[1].startswith(str(folder / "tmp")), "the message before its renaming"
    assert synced[2] == queue, "its name"


def test_a_disk_that_refuses_a_message_raises_what_kombu_retries_and_leaves_nothing(channel, folder):
    (folder / "ready" / "tasks").write_text("a file where the queue's folder should be")

    with pytest.raises(ChannelError, match="Cannot write a message to"):
        send(channel, 1)

    assert not any((folder / "tmp").iterdir())


# -- order


def test_messages_come_in_the_order_in_which_they_were_sent(channel):
    for number in range(250):
        send(channel, number)

    assert drain(channel) == list(range(250))


def test_urgent_messages_come_first_and_keep_their_order(channel):
    for number, priority in enumerate([0, 9, 5, None, 9, 5, 99]):
        send(channel, number, priority=priority)

    assert drain(channel) == [1, 4, 6, 2, 5, 0, 3]


def test_an_urgent_message_overtakes_a_backlog_that_was_listed_before(channel, monkeypatch):
    monkeypatch.setattr(filesystem, "LISTING_AGE", 0)
    for number in range(3):
        send(channel, number)
    channel.basic_get("tasks").ack()

    send(channel, "urgent", priority=9)

    assert drain(channel) == ["urgent", 1, 2]


def test_the_order_does_not_depend_on_a_clock_that_starts_at_boot(channel, folder):
    send(channel, 1)

    (name,) = os.listdir(folder / "ready" / "tasks")

    assert abs(int(name[1:21]) - time.time_ns()) < 60e9


# -- settling


def test_a_received_message_stays_on_the_disk_until_it_is_acknowledged(channel, folder):
    send(channel, 1)

    message = channel.basic_get("tasks")
    held = files(folder)
    message.ack()

    assert [path.relative_to(folder).parts[0] for path in held] == ["inflight"]
    assert files(folder) == []


def test_a_requeued_message_takes_its_old_place_and_says_that_it_was_redelivered(channel):
    for number in range(2):
        send(channel, number)

    first = channel.basic_get("tasks")
    first.reject(requeue=True)
    channel._listings.clear()
    again = channel.basic_get("tasks")

    assert first.delivery_info["redelivered"] is False
    assert again.delivery_info["redelivered"] is True
    assert (loads(again.body), again.headers) == (0, first.headers)


def test_a_message_that_goes_round_and_round_keeps_one_file_name(channel, folder):
    send(channel, 1)

    for _ in range(3):
        channel.basic_get("tasks").reject(requeue=True)

    (name,) = os.listdir(folder / "ready" / "tasks")
    assert name.count(filesystem.AGAIN) == 1


def test_a_refused_message_is_gone(channel, folder):
    send(channel, 1)

    channel.basic_get("tasks").reject(requeue=False)

    assert files(folder) == []


def test_closing_a_channel_gives_back_what_was_not_acknowledged(folder):
    with connect(folder) as connection:
        for number in range(3):
            send(connection.default_channel, number)
        taken = [connection.default_channel.basic_get("tasks") for _ in range(3)]
        taken[1].ack()

    with connect(folder) as connection:
        back = [connection.default_channel.basic_get("tasks") for _ in range(2)]

        assert [loads(message.body) for message in back] == [0, 2]
        assert all(message.delivery_info["redelivered"] for message in back)
        assert connection.default_channel.basic_get("tasks") is None


def test_an_acknowledgement_after_the_close_does_no_harm(folder):
    with connect(folder) as connection:
        send(connection.default_channel, 1)
        message = connection.default_channel.basic_get("tasks")

    message.ack()

    with connect(folder) as connection:
        assert drain(connection.default_channel) == [1]


def test_a_consumer_without_acknowledgement_removes_the_message_on_delivery(folder):
    received = []
    with connect(folder) as connection:
        send(connection.default_channel, 1)
        with Consumer(
            connection.default_channel,
            [Queue("tasks")],
            no_ack=True,
            on_message=lambda message: received.append((loads(message.body), files(folder / "inflight"))),
        ):
            connection.drain_events(timeout=5)

    assert received == [(1, [])]
    assert files(folder / "ready") == []


def test_a_get_without_acknowledgement_removes_the_message(channel, folder):
    send(channel, 1)

    assert loads(channel.basic_get("tasks", no_ack=True).body) == 1
    assert files(folder) == []


def test_copies_of_one_message_in_two_queues_are_settled_apart(channel, folder):
    exchange = Exchange("both", "topic")
    for name in ("one", "two"):
        Queue(name, exchange, routing_key="#")(channel).declare()
    Producer(channel, exchange).publish(1, routing_key="any", serializer="json")

    one, two = channel.basic_get("one"), channel.basic_get("two")
    one.ack()
    two.reject(requeue=True)

    assert [channel._size(name) for name in ("one", "two")] == [0, 1]


# -- the death of a process

TAKE_ONE = """
message = channel.basic_get("tasks")
print(message.delivery_tag, flush=True)
"""


def test_what_a_killed_process_had_taken_is_given_back(channel, run):
    send(channel, 1)
    process = run(TAKE_ONE + "signal.pause()")
    assert process.stdout.readline()

    channel._sweep()
    while_it_lived = channel._size("tasks")
    process.kill()
    process.wait()
    channel._sweep()
    message = channel.basic_get("tasks")

    assert while_it_lived == 0
    assert (loads(message.body), message.delivery_info["redelivered"]) == (1, True)


def test_a_consumer_looks_for_the_dead_before_its_first_message_and_again_later(folder, run, monkeypatch):
    with connect(folder) as connection:
        send(connection.default_channel, 1)
    process = run(TAKE_ONE + "signal.pause()")
    assert process.stdout.readline()
    process.kill()
    process.wait()

    with connect(folder) as connection:
        assert drain(connection.default_channel, ack=False) == [1]

    monkeypatch.setattr(filesystem, "SWEEP_INTERVAL", 0)
    with connect(folder) as connection:
        assert connection.default_channel.basic_get("other") is None
        process = run(TAKE_ONE + "os.kill(os.getpid(), signal.SIGKILL)")
        process.wait()
        assert drain(connection.default_channel) == [1]


def test_a_child_that_outlives_its_killed_parent_does_not_keep_the_parents_messages(channel, run):
    """A pool child in a long task: the lock goes with the parent, not with a copy of its descriptor."""
    send(channel, 1)
    process = run(TAKE_ONE + "child = os.fork()\nprint(child, flush=True) if child else None\nsignal.pause()")
    assert process.stdout.readline()
    child = int(process.stdout.readline())

    try:
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives

        def given_back():
            channel._sweep()
            return channel._size("tasks")

        wait_for(given_back)  # the child gives its copy up as soon as it first runs
        assert drain(channel) == [1]
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_that_closes_an_inherited_channel_leaves_the_parents_messages_alone(channel):
    send(channel, 1)
    message = channel.basic_get("tasks")

    child = os.fork()
    if not child:
        try:
            message.ack()
            channel.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    assert channel._size("tasks") == 0
    message.reject(requeue=True)
    assert drain(channel) == [1]


def test_the_parents_lock_survives_a_fork(channel, folder):
    own = filesystem.own_folder(folder)

    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)

    descriptor = os.open(own, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_a_folder_that_was_removed_under_a_running_consumer_is_made_again(channel, folder):
    send(channel, 1)
    assert drain(channel) == [1]

    shutil.rmtree(folder)
    channel._sweep()
    assert drain(channel) == []
    with connect(folder) as connection:
        send(connection.default_channel, 2)

    assert drain(channel) == [2]


def test_what_a_writer_left_when_it_died_is_removed_after_an_hour(channel, folder):
    old, new = folder / "tmp" / "old", folder / "tmp" / "new"
    for path in (old, new):
        path.write_text("half")
    (folder / "tmp" / "owner").mkdir()
    os.utime(old, (0, 0))
    os.utime(folder / "tmp" / "owner", (0, 0))

    channel._sweep()

    assert list((folder / "tmp").iterdir()) == [new]


def test_a_dead_folder_that_cannot_be_emptied_does_not_stop_the_consumer(channel, folder, caplog):
    (folder / "inflight" / "dead").mkdir()
    (folder / "inflight" / "dead" / "no-folder").write_text("")
    send(channel, 1)

    assert drain(channel) == [1]
    assert "Cannot give back the messages in" in caplog.text


# -- many processes


def test_concurrent_consumers_get_each_message_exactly_once(channel, run):
    for number in range(400):
        send(channel, number)

    consumers = [
        run("""
while (message := channel.basic_get("tasks")) is not None:
    print(message.payload)
    message.ack()
""")
        for _ in range(3)
    ]
    received = [int(line) for process in consumers for line in process.communicate(timeout=60)[0].split()]

    assert sorted(received) == list(range(400))


def test_large_messages_are_read_whole_while_they_are_being_written(channel, run):
    sender = run("""
from kombu import Producer
for number in range(20):
    Producer(channel).publish(str(number) * 3_000_000, exchange="", routing_key="tasks", serializer="json")
""")

    def receive():
        message = channel.basic_get("tasks")
        if message is not None:
            message.ack()
            return message.payload
        return None

    received = [wait_for(receive) for _ in range(20)]

    assert sender.wait() == 0
    assert all(body == str(number) * 3_000_000 for number, body in enumerate(received))


# -- what is no message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"body": "aGFs',
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"properties": {}}',
        b'{"body": "a", "properties": {"delivery_info": {}, "body_encoding": "base64"}}',
        b'{"body": "aa", "properties": {"delivery_info": {}, "body_encoding": "unheard of"}}',
        b"[" * 100_000,
    ],
)
def test_a_file_that_is_no_message_is_moved_aside_and_named_once(channel, folder, caplog, content):
    send(channel, 1)
    (folder / "ready" / "tasks" / "0000").write_bytes(content)

    assert drain(channel) == [1]
    assert (folder / "broken" / "tasks" / "0000").read_bytes() == content
    assert caplog.text.count(str(folder / "broken" / "tasks" / "0000")) == 1


def test_a_folder_in_place_of_a_message_is_moved_aside(channel, folder):
    send(channel, 1)
    (folder / "ready" / "tasks" / "0000").mkdir()

    assert drain(channel) == [1]
    assert (folder / "broken" / "tasks" / "0000").is_dir()


# -- queues

ODD_NAMES = [
    "a.b",
    ".",
    "..",
    "../../etc",
    "/abs",
    "",
    "%",
    "%2e",
    "a b\n",
    "Ümlaut",
    "A",
    "a",
    "*",
    "q.msg",
    "-x",
]


def test_odd_queue_names_neither_escape_nor_meet(channel, folder):
    for name in ODD_NAMES:
        channel._put(name, channel.prepare_message(dumps(name), properties={"delivery_info": {}}))

    for name in ODD_NAMES:
        assert loads(channel._get(name)["body"]) == name
        assert channel._size(name) == 0

    assert len({filesystem.encode(name).lower() for name in ODD_NAMES}) == len(ODD_NAMES)
    assert all(unquote(filesystem.encode(name)) == name for name in ODD_NAMES if name)
    assert {path.name for path in folder.parent.iterdir()} == {folder.name}


def test_size_counts_and_purge_removes_the_messages_of_one_queue(channel):
    for number in range(3):
        send(channel, number)
    send(channel, 3, queue="tasks.more")

    assert channel.queue_declare("tasks").message_count == 3
    assert channel.queue_purge("tasks") == 3
    assert [channel._size(name) for name in ("tasks", "tasks.more", "absent")] == [0, 1, 0]


def test_two_folders_in_one_process_do_not_know_of_each_others_bindings(tmp_path):
    exchange = Exchange("news", "fanout")

    for name in ("a", "b"):
        with connect(tmp_path / name) as connection:
            Queue("reader", exchange)(connection.default_channel).declare()
            Producer(connection.default_channel, exchange).publish(name)

            assert connection.default_channel._size("reader") == 1


# -- fanout and temporary queues

NEWS = Exchange("celery.news", "fanout", durable=False, delivery_mode="transient")


def test_fanout_reaches_every_queue_bound_in_any_process(channel, run):
    run("""
from kombu import Exchange, Queue
Queue("theirs", Exchange("celery.news", "fanout"))(channel).declare()
""").wait()
    Queue("ours", NEWS)(channel).declare()

    Producer(channel, NEWS).publish("hello", serializer="json")

    assert drain(channel, "ours") == drain(channel, "theirs") == ["hello"]


def test_deleting_a_queue_removes_its_messages_and_bindings(channel, folder):
    queue = Queue("reader", NEWS)(channel)
    queue.declare()
    Producer(channel, NEWS).publish("hello")

    queue.delete()
    Producer(channel, NEWS).publish("nobody listens")

    assert files(folder) == []
    assert not (folder / "ready" / "reader").exists()


READ_NEWS = """
from kombu import Consumer, Exchange, Queue
news = Exchange("celery.news", "fanout", durable=False, delivery_mode="transient")
queue = Queue("reader", news, auto_delete=True, durable=False)
Consumer(channel, [queue], no_ack={no_ack}, on_message=print).consume()
print("reading", flush=True)
signal.pause()
"""


def test_a_temporary_queue_goes_with_the_process_that_read_it_without_acknowledging(channel, folder, run):
    process = run(READ_NEWS.format(no_ack=True))
    assert process.stdout.readline()
    Producer(channel, NEWS).publish("hello", serializer="json")
    channel._sweep()
    while_it_lived = channel._size("reader")

    process.kill()
    process.wait()
    channel._sweep()
    Producer(channel, NEWS).publish("nobody listens")

    assert while_it_lived == 1
    assert files(folder) == []
    assert not (folder / "ready" / "reader").exists()


def test_a_temporary_queue_stays_while_another_process_reads_it(channel, run):
    first, second = (run(READ_NEWS.format(no_ack=True)) for _ in range(2))
    assert first.stdout.readline()
    assert second.stdout.readline()
    Producer(channel, NEWS).publish("before", serializer="json")

    first.kill()
    first.wait()
    channel._sweep()
    Producer(channel, NEWS).publish("after", serializer="json")

    assert drain(channel, "reader") == ["before", "after"]


def test_a_temporary_queue_whose_reader_acknowledges_keeps_its_messages(channel, run):
    process = run(READ_NEWS.format(no_ack=False))
    assert process.stdout.readline()
    Producer(channel, NEWS).publish("work", serializer="json")

    process.kill()
    process.wait()
    channel._sweep()

    assert drain(channel, "reader") == ["work"]


def test_a_transient_message_to_a_queue_that_is_gone_is_dropped_and_any_other_makes_its_queue(channel):
    send(channel, 1, queue="gone", delivery_mode="transient")
    send(channel, 2, queue="new")

    assert drain(channel, "gone") == []
    assert drain(channel, "new") == [2]


def test_a_consumer_receives_within_the_polling_interval(folder):
    received = []
    with (
        connect(folder) as connection,
        Consumer(connection.default_channel, [Queue("tasks")], on_message=lambda message: received.append(message)),
    ):
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=0.05)
        send(connection.default_channel, 1)
        connection.drain_events(timeout=5)

        assert Path(received[0].delivery_tag).name in {path.name for path in files(folder)}
