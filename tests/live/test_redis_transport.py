"""The atomic Redis transport with kombu alone, on a real Redis."""

import contextlib
import logging
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from harness import ROOT, RedisServer, free_port, unavailable, wait_until
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.transport.redis import Channel as StockChannel
from services import Redis, service

from django_taskkit.transports.redis_scripts import CLAIM

ATOMIC = "django_taskkit.transports.redis:Transport"
STOCK = "redis"
#: Seconds that an idle consumer waits for its bells, in tests that must not pass by its waking early: they end before.
FOREVER = 600
LONG = 240


class Site:
    """One Redis database, connections to it by any transport, and a direct look into it."""

    def __init__(self, url):
        self.url = url
        self.redis = redis.Redis.from_url(url)
        self._stack = contextlib.ExitStack()
        self._stack.callback(self.redis.close)

    def connect(self, transport=ATOMIC, url=None, **options):
        connection = Connection(url or self.url, transport=transport, transport_options=options)
        return self._stack.enter_context(connection)

    def publish(self, body, queue="jobs", transport=ATOMIC, **properties):
        with Connection(self.url, transport=transport) as connection:
            connection.Producer().publish(body, routing_key=queue, declare=[Queue(queue)], **properties)

    def waiting(self, queue="jobs"):
        return self.redis.llen(queue)

    def unacknowledged(self):
        return self.redis.hlen("unacked"), self.redis.zcard("unacked_index")

    def idle_consumers(self):
        """How many connections wait for a message of this database; others of the session may wait on theirs."""
        mine = self.redis.connection_pool.connection_kwargs.get("db") or 0
        clients = self.redis.client_list()
        return sum(c["cmd"] == "brpop" and "b" in c["flags"] and int(c["db"]) == mine for c in clients)

    def wait_for_idle_consumers(self, count):
        wait_until(lambda: self.idle_consumers() == count, LONG, f"{count} consumers wait")

    def outlast_visibility(self, **options):
        """Put back what is unacknowledged, as any worker does once the visibility timeout has passed."""
        channel = self.connect(visibility_timeout=0, **options).channel()
        channel.qos.restore_visible()
        channel.close()

    def close(self):
        self._stack.close()


@pytest.fixture
def site():
    url = service(Redis).claim()
    site = Site(url)
    yield site
    site.close()
    service(Redis).release(url)


class Reader:
    """A consumer that keeps what it gets; `ack` settles at once."""

    def __init__(self, connection, *queues, ack=True, **options):
        self.connection, self.messages = connection, []
        self.channel = connection.channel()

        def keep(message):
            self.messages.append(message)
            if ack and not options.get("no_ack"):
                message.ack()

        bound = [(Queue(queue) if isinstance(queue, str) else queue)(self.channel) for queue in queues]
        self.consumer = Consumer(self.channel, bound, on_message=keep, **options)
        self.consumer.consume()

    def read(self, count=1, within=60):
        """Go on until `count` messages are here; returns their contents."""
        deadline = time.monotonic() + within
        while len(self.messages) < count:
            assert time.monotonic() < deadline, f"got {len(self.messages)} of {count} messages in {within} s"
            with contextlib.suppress(TimeoutError):
                self.connection.drain_events(timeout=1)
        return [message.decode() for message in self.messages]

    def look(self, seconds=2.2):
        """Take what comes meanwhile: two turns of an idle consumer."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                self.connection.drain_events(timeout=0.5)


FATAL = """
import os, signal, sys
import redis
from kombu import Connection, Consumer, Queue

url, transport, way = sys.argv[1:]
read = redis.Connection.read_response

def die_as_the_message_arrives(self, *args, **options):
    reply = read(self, *args, **options)
    if "the mark" in repr(reply):
        os.kill(os.getpid(), signal.SIGKILL)
    return reply

redis.Connection.read_response = die_as_the_message_arrives
with Connection(url, transport=transport) as connection:
    channel = connection.channel()
    queue = Queue("jobs", channel=channel)
    if way == "get":
        queue.get()
    with Consumer(channel, [queue], on_message=print):
        connection.drain_events(timeout=30)
"""


def kill_a_consumer_as_its_message_arrives(site, transport, way="consume"):
    site.publish("precious", headers={"mark": "the mark"})
    command = [sys.executable, "-c", FATAL, site.url, transport, way]
    done = subprocess.run(command, cwd=ROOT, timeout=60, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("way", ["consume", "get"])
def test_a_message_survives_the_consumer_that_is_killed_as_it_arrives(site, way):
    kill_a_consumer_as_its_message_arrives(site, ATOMIC, way)

    assert site.waiting() == 0
    assert site.unacknowledged() == (1, 1)
    site.outlast_visibility()
    reader = Reader(site.connect(), "jobs")
    assert reader.read() == ["precious"]
    assert reader.messages[0].delivery_info["redelivered"]
    assert site.unacknowledged() == (0, 0)


@pytest.mark.parametrize("way", ["consume", "get"])
def test_kombus_own_transport_loses_that_message(site, way):
    """What this transport is for: should it fail, kombu has mended it."""
    kill_a_consumer_as_its_message_arrives(site, STOCK, way)

    assert (site.waiting(), site.unacknowledged()) == (0, (0, 0))


def test_an_idle_consumer_wakes_for_any_of_its_queues_and_priorities(site):
    connection = site.connect()
    reader = Reader(connection, "first", "second")
    reader.channel.brpop_timeout = FOREVER
    reader.look()

    def publish_when_idle(*message, **properties):
        site.wait_for_idle_consumers(1)
        site.publish(*message, **properties)

    for count, (queue, priority) in enumerate([("first", 0), ("second", 0), ("second", 9), ("first", 5)], start=1):
        publisher = threading.Thread(target=publish_when_idle, args=(count, queue), kwargs={"priority": priority})
        publisher.start()
        assert reader.read(count, within=LONG)[-1] == count
        publisher.join()


def test_each_message_wakes_one_of_several_idle_consumers(site):
    readers = [Reader(site.connect(), "jobs", ack=False, prefetch_count=1) for _ in range(3)]
    for reader in readers:
        reader.channel.brpop_timeout = FOREVER
    with ThreadPoolExecutor(len(readers)) as threads:
        found = [threads.submit(reader.read, within=LONG) for reader in readers]
        site.wait_for_idle_consumers(3)

        for number in range(3):
            site.publish(number)

        assert sorted(future.result()[0] for future in found) == [0, 1, 2]


def test_messages_of_a_stock_producer_are_found_by_who_looks_next_and_wake_the_others(site):
    """They ring no bell. One consumer looks every second, the other one waits for its bell alone."""
    readers = [Reader(site.connect(), "jobs", ack=False, prefetch_count=1) for _ in range(2)]
    readers[1].channel.brpop_timeout = FOREVER
    with ThreadPoolExecutor(len(readers)) as threads:
        found = [threads.submit(reader.read, within=LONG) for reader in readers]
        site.wait_for_idle_consumers(2)

        with site.redis.pipeline() as together:
            for number in range(2):
                site.publish(number, "elsewhere", transport=STOCK)
                together.lpush("jobs", site.redis.rpop("elsewhere"))
            together.execute()

        assert sorted(future.result()[0] for future in found) == [0, 1]


def test_batches_and_queues_that_expire_ring_as_well(site):
    connection = site.connect()
    reader = Reader(connection, Queue("jobs", expires=60))
    reader.channel.brpop_timeout = FOREVER
    reader.look()
    expected = 1
    producer = Producer(site.connect())
    producer.publish("to a queue that expires", routing_key="jobs", declare=[Queue("jobs", expires=60)])
    if hasattr(producer, "batch"):  # kombu 5.7
        assert len(reader.read(expected)) == expected
        expected += 3
        with producer.batch():
            for number in range(3):
                producer.publish(number, routing_key="jobs")

    assert len(reader.read(expected)) == expected


@pytest.mark.parametrize(("writer", "reader"), [(STOCK, ATOMIC), (ATOMIC, STOCK)])
def test_a_queue_can_change_hands_between_the_transports(site, writer, reader):
    body = {"text": "naïve ☃ \ud83d", "bytes": "AAEC", "number": 1e300}
    for priority in (0, 9):
        site.publish(body, transport=writer, priority=priority, headers={"ключ": ["значение", None]})

    got = Reader(site.connect(reader), "jobs")

    assert got.read(2) == [body, body]
    assert all(message.headers == {"ключ": ["значение", None]} for message in got.messages)
    assert site.unacknowledged() == (0, 0)


@pytest.mark.parametrize(("holder", "restorer"), [(STOCK, ATOMIC), (ATOMIC, STOCK), (ATOMIC, ATOMIC)])
def test_what_one_transport_left_unacknowledged_the_other_puts_back(site, holder, restorer):
    exchange = Exchange("news", type="direct")
    queue = Queue("jobs", exchange, routing_key="rain")
    publisher = site.connect(holder).Producer()
    publisher.publish(b"\x00\xff body", exchange=exchange, routing_key="rain", declare=[queue], content_type="raw",
                      content_encoding="binary", priority=6)  # fmt: skip
    Reader(site.connect(holder), queue, ack=False).read()
    assert site.unacknowledged() == (1, 1)

    site.outlast_visibility(transport=restorer)

    assert site.unacknowledged() == (0, 0)
    assert site.waiting("jobs\x06\x166") == 1
    reader = Reader(site.connect(restorer), queue)
    assert reader.read() == [b"\x00\xff body"]
    assert reader.messages[0].headers["redelivered"]


def test_a_message_whose_binding_is_gone_returns_to_its_queue(site):
    queue = Queue("jobs", Exchange("news"), routing_key="rain")
    site.connect().Producer().publish("dry", exchange="news", routing_key="rain", declare=[queue])
    Reader(site.connect(), queue, ack=False).read()
    site.redis.delete("_kombu.binding.news")

    site.outlast_visibility()

    assert (site.waiting(), site.unacknowledged()) == (1, (0, 0))


def test_a_stock_record_whose_binding_is_gone_is_set_aside(site, caplog):
    queue = Queue("jobs", Exchange("news"), routing_key="rain")
    site.connect(STOCK).Producer().publish("dry", exchange="news", routing_key="rain", declare=[queue])
    Reader(site.connect(STOCK), queue, ack=False).read()
    site.redis.delete("_kombu.binding.news")

    site.outlast_visibility()

    assert site.waiting("unacked.broken") == 1
    assert site.unacknowledged() == (0, 0)
    (record,) = [r for r in caplog.records if r.levelno == logging.CRITICAL]
    assert "'unacked.broken'" in record.message
    assert "'news'" in record.message


def test_urgent_messages_come_first_and_queues_take_turns(site):
    for number in range(3):
        site.publish(f"a{number}", "a")
        site.publish(f"b{number}", "b")
    for queue in ("a", "b"):
        site.publish(f"later {queue}", queue, priority=9)

    bodies = Reader(site.connect(), "a", "b").read(8)

    assert [body[0] for body in bodies[:6]] in (list("ababab"), list("bababa"))
    assert [body for body in bodies if body.startswith("a")] == ["a0", "a1", "a2"]
    assert set(bodies[6:]) == {"later a", "later b"}


def test_the_queue_order_strategy_and_priority_steps_apply(site):
    options = {"queue_order_strategy": "sorted", "priority_steps": [0, 5]}
    publisher = site.connect(**options).Producer()
    for queue, priority in [("b", 5), ("b", 0), ("a", 4), ("a", 7)]:
        publisher.publish(f"{queue}{priority}", routing_key=queue, priority=priority)

    assert Reader(site.connect(**options), "b", "a").read(4) == ["a4", "b0", "a7", "b5"]


@pytest.mark.parametrize("others", [[], ["jobs"]], ids=["alone", "beside others"])
def test_a_consumer_without_acknowledgements_leaves_no_records(site, others):
    connection = site.connect()
    plain = Reader(connection, "replies", no_ack=True)
    plain.channel.brpop_timeout = FOREVER
    if others:
        acked = Queue("jobs", channel=plain.channel)
        Consumer(plain.channel, [acked], on_message=plain.messages.append).consume()
    for transport in (ATOMIC, STOCK):
        site.publish(transport, "replies", transport=transport)
    assert len(plain.read(2)) == 2
    plain.look(1)

    threading.Timer(0.5, site.publish, ("late", "replies", STOCK)).start()

    assert len(plain.read(3)) == 3
    assert site.unacknowledged() == (0, 0)


def test_get_takes_acknowledges_and_finds_nothing(site):
    site.publish("one", priority=3)
    site.publish("two", priority=3)
    queue = Queue("jobs", channel=site.connect().channel())

    first, second = queue.get(), queue.get(no_ack=True)

    assert (first.payload, second.payload) == ("one", "two")
    assert queue.get() is None
    assert site.unacknowledged() == (1, 1)
    first.ack()
    assert site.unacknowledged() == (0, 0)


def test_a_claim_that_the_client_repeats_gets_the_same_message(site):
    """redis-py sends a command again when the connection broke before the reply."""
    site.publish("one")
    site.publish("two")
    channel = site.connect().channel()
    keys, args, _ = channel._claim(["jobs"], {"jobs"})

    with channel.conn_or_acquire() as client:
        replies = [channel._run(CLAIM, keys, args, client) for _ in range(2)]

    assert replies[0] == replies[1]
    assert (site.waiting(), site.unacknowledged()) == (1, (1, 1))


def test_acknowledgements_can_be_switched_off(site):
    site.publish("one")
    reader = Reader(site.connect(ack_emulation=False), "jobs", ack=False)

    assert reader.read() == ["one"]
    assert site.unacknowledged() == (0, 0)


def test_every_key_bears_the_global_prefix(site):
    connection = site.connect(global_keyprefix="mine.")
    producer = connection.Producer()
    site.redis.lpush("mine.jobs", b"rubbish")
    for number in range(3):
        producer.publish(number, routing_key="jobs", exchange="news", declare=[Queue("jobs", Exchange("news"), "jobs")])

    reader = Reader(connection, "jobs", ack=False)
    assert reader.read(3) == [0, 1, 2]
    reader.messages[0].reject(requeue=True)
    reader.messages[1].reject()
    keys = {key.decode() for key in site.redis.scan_iter()}

    assert {"mine.jobs", "mine.jobs.broken", "mine.unacked", "mine.unacked_index"} <= keys
    assert all(key.startswith("mine.") for key in keys)
    site.redis.flushdb()


def test_copies_of_a_message_in_two_queues_are_settled_one_by_one(site):
    exchange = Exchange("all", type="topic")
    queues = [Queue(name, exchange, routing_key="#") for name in ("left", "right")]
    site.connect().Producer().publish("twice", exchange=exchange, routing_key="x", declare=queues)
    reader = Reader(site.connect(), *queues, ack=False)
    assert reader.read(2) == ["twice", "twice"]

    reader.messages[0].ack()

    assert site.unacknowledged() == (1, 1)
    site.outlast_visibility()
    assert sorted([site.waiting("left"), site.waiting("right")]) == [0, 1]


def test_a_late_acknowledgement_does_not_settle_the_next_delivery(site):
    site.publish("slow")
    first = Reader(site.connect(), "jobs", ack=False)
    first.read()
    site.outlast_visibility()
    second = Reader(site.connect(), "jobs", ack=False)
    second.read()

    first.messages[0].ack()

    assert site.unacknowledged() == (1, 1)
    second.messages[0].ack()
    assert site.unacknowledged() == (0, 0)


RUBBISH = [b"rubbish", b"\xff\xfe", b"[1, 2]", b"null", b'{"body": 1}', b'{"properties": 1}',
           b'{"properties": {"delivery_info": {}, "body_encoding": "base64"}, "body": "x"}', b"[" * 5000]  # fmt: skip


@pytest.mark.parametrize("how", ["acked", "no_ack", "get"])
def test_what_is_no_message_is_set_aside_and_named(site, caplog, how):
    site.redis.lpush("jobs", *RUBBISH)
    site.publish("real")

    if how == "get":
        assert Queue("jobs", channel=site.connect().channel()).get(no_ack=True).payload == "real"
    else:
        assert Reader(site.connect(), "jobs", no_ack=how == "no_ack").read() == ["real"]

    aside = site.redis.lrange("jobs.broken", 0, -1)
    assert aside == RUBBISH[::-1]
    assert site.unacknowledged() == (0, 0)
    critical = [record.message for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(critical) == len(aside)
    assert "'jobs.broken'" in critical[0]


def test_an_unreadable_record_does_not_stop_the_others_from_being_put_back(site):
    Reader(site.connect(), "jobs")
    for number in range(3):
        site.publish(number)
    Reader(site.connect(), "jobs", ack=False).read(3)
    site.redis.hset("unacked", "bad", b'[rubbish,"","jobs"]')
    site.redis.zadd("unacked_index", {"bad": 1, "no such": 2})

    site.outlast_visibility()

    assert (site.waiting(), site.unacknowledged()) == (3, (0, 0))
    assert site.redis.lrange("unacked.broken", 0, -1) == [b'[rubbish,"","jobs"]']


def test_requeued_and_unsettled_messages_return_marked(site):
    for number in range(3):
        site.publish(number)
    connection = site.connect()
    reader = Reader(connection, "jobs", ack=False)
    reader.read(3)
    reader.messages[0].ack()
    reader.messages[1].requeue()

    connection.close()

    assert site.unacknowledged() == (0, 0)
    again = Reader(site.connect(), "jobs")
    assert sorted(again.read(2)) == [1, 2]
    assert all(message.headers["redelivered"] for message in again.messages)


def test_a_message_that_arrives_for_a_cancelled_consumer_returns_to_its_queue(site):
    connection = site.connect()
    reader = Reader(connection, "jobs")
    site.publish("too late")
    connection.transport.cycle.on_poll_start()
    wait_until(lambda: site.unacknowledged() == (1, 1), message="the message is claimed, and its reply not yet read")

    reader.consumer.cancel()
    connection.close()

    assert reader.messages == []
    assert (site.waiting(), site.unacknowledged()) == (1, (0, 0))


def test_restoring_goes_on_where_no_event_loop_calls_for_it(site):
    """gevent and plain `drain_events`: kombu's own loop never gets there."""
    kill_a_consumer_as_its_message_arrives(site, ATOMIC)

    reader = Reader(site.connect(visibility_timeout=1, unacked_restore_throttle=1), "jobs")

    assert reader.read() == ["precious"]


def test_a_full_redis_can_still_be_emptied():
    if not shutil.which("redis-server"):
        unavailable("no redis-server")
    server = RedisServer().start()
    site = Site(server.url())
    try:
        for number in range(3):
            site.publish(number)
        reader = Reader(site.connect(), "jobs", ack=False)
        site.redis.script_flush()
        site.redis.config_set("maxmemory-policy", "noeviction")
        site.redis.config_set("maxmemory", "1mb")
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            site.publish("one too many")

        assert reader.read(3) == [0, 1, 2]
        assert site.unacknowledged() == (3, 3)
        reader.messages[0].requeue()
        assert (site.waiting(), site.unacknowledged()) == (1, (2, 2))
    finally:
        site.close()
        server.close()


def test_a_server_that_forgot_the_scripts_is_taught_again(site):
    reader = Reader(site.connect(), "jobs")
    producer = site.connect().Producer()
    for number in range(1, 4):
        site.redis.script_flush()
        producer.publish(number, routing_key="jobs")
        assert reader.read(number)[-1] == number


def test_a_unix_socket_works(tmp_path):
    if not shutil.which("redis-server"):
        unavailable("no redis-server")
    with serving(tmp_path, port=0, unixsocket=tmp_path / "s"):
        site = Site(f"unix://{tmp_path}/s")
        assert carries_a_message(site.connect(url=f"socket://{tmp_path}/s"))
        site.close()


def test_rediss_urls_are_encrypted_and_verified(tmp_path):
    if not (shutil.which("redis-server") and shutil.which("openssl")):
        unavailable("no redis-server or openssl")
    key, certificate, port = tmp_path / "key.pem", tmp_path / "cert.pem", free_port()
    make = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {certificate}"
    subprocess.run([*make.split(), "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    options = {"tls-port": port, "tls-cert-file": certificate, "tls-key-file": key, "tls-auth-clients": "no"}
    with serving(tmp_path, port=0, **options):
        verified = f"rediss://localhost:{port}?ssl_cert_reqs=required&ssl_ca_certs={certificate}"
        for url in (verified, f"rediss://localhost:{port}"):
            with Connection(url, transport=ATOMIC) as connection:
                assert carries_a_message(connection)
        with (
            Connection(f"rediss://localhost:{port}?ssl_cert_reqs=required", transport=ATOMIC) as connection,
            pytest.raises((ssl.SSLError, redis.ConnectionError)),
        ):
            connection.connect()


def test_sentinels_lead_to_the_master(tmp_path):
    if not shutil.which("redis-server"):
        unavailable("no redis-server")
    server, port = RedisServer().start(), free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(f"port {port}\nsentinel monitor main 127.0.0.1 {server.port} 1\n")
    try:
        with serving(tmp_path, configuration, sentinel=""):
            urls = f"sentinel://127.0.0.1:{free_port()};sentinel://127.0.0.1:{port}"
            with Connection(urls, transport=ATOMIC, transport_options={"master_name": "main"}) as connection:
                connection.ensure_connection(max_retries=3, interval_start=0.1)
                assert carries_a_message(connection)
            with redis.Redis(port=server.port) as client:
                assert client.info("commandstats")["cmdstat_evalsha"]["calls"] >= 2
    finally:
        server.close()


@contextlib.contextmanager
def serving(folder: Path, *arguments, **options):
    """A redis-server of the test's own; returns to the test when it accepts connections."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value)) if word]
    log = folder / "server.log"
    command = [shutil.which("redis-server"), *map(str, arguments), *words]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
    try:
        wait_until(lambda: "eady to accept" in log.read_text() or "Sentinel ID" in log.read_text(), 20, "it serves")
        yield
    finally:
        process.kill()
        process.wait()


def carries_a_message(connection):
    connection.Producer().publish("there and back", routing_key="jobs")
    return Reader(connection, "jobs").read() == ["there and back"]


def test_the_stock_channel_still_has_the_hooks_that_are_overridden():
    """A method that kombu renames would leave ours unused, and the loss back."""
    for name in ("_brpop_start", "_brpop_read", "_put", "_q_for_pri", "basic_get", "basic_consume", "conn_or_acquire"):
        assert callable(getattr(StockChannel, name))
    for name in ("append", "restore_by_tag", "_remove_from_indices"):
        assert callable(getattr(StockChannel.QoS, name))


def test_a_worker_that_closes_its_connection_while_redis_is_away_outlives_that_and_its_messages_do_too():
    if not shutil.which("redis-server"):
        unavailable("no redis-server")
    server = RedisServer(durable=True).start()
    site = Site(server.url())
    try:
        site.publish("one")
        connection = site.connect()
        channel = connection.default_channel
        queue = Queue("jobs")(channel)
        wait_until(lambda: queue.get(), LONG, "the message is taken")

        server.kill()
        transport = connection.transport
        transport.client = None  # as a worker's is when it closes its connection for the second time
        channel.close()
        server.start()

        assert site.unacknowledged() == (1, 1)
        site.outlast_visibility()
        assert Reader(site.connect(), "jobs").read() == ["one"]
    finally:
        site.close()
        server.close()
