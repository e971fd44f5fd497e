"""Real brokers and real worker processes for the tests under ``tests/live``.

A test gets a `Broker` (its own queue on Redis, RabbitMQ or the filesystem, nothing shared with another test)
and starts a `Worker` (``python -m celery worker`` in a subprocess). Both end only what they started.

The worker's app takes the broker's settings with one line::

    app.conf.update(harness.celery_settings())

A service that cannot be had skips the test, or fails it where the environment variable ``CI`` is set. Addresses:
``TASKKIT_TEST_REDIS_URL`` (default: a private ``redis-server`` on a free port, else the one on loopback) and
``TASKKIT_TEST_RABBITMQ_URL`` (default: a virtual host of its own on loopback).
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import kombu
from celery import Celery
from kombu.exceptions import OperationalError

SETTINGS_VARIABLE = "TASKKIT_TEST_CELERY"
BROKERS = ("redis", "rabbitmq", "rabbitmq-quorum", "filesystem")

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

T = TypeVar("T")


def celery_settings() -> dict[str, Any]:
    """What `Worker` told this process about its broker; empty outside a worker."""
    return json.loads(os.environ.get(SETTINGS_VARIABLE, "{}"))


def unavailable(reason: str) -> NoReturn:
    """A missing service skips the test on a laptop and fails it in CI."""
    import pytest

    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def wait_until(
    condition: Callable[[], T],
    timeout: float = 30,
    message: str | None = None,
    interval: float = 0.05,
) -> T:
    """The first true value of `condition`; fails with the last value seen when `timeout` seconds have passed."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            name = getattr(condition, "__name__", repr(condition))
            raise AssertionError(f"{message or name}: not within {timeout} s; last value: {value!r}")
        time.sleep(interval)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


# Services, one of each per test session, started when first needed.


class RedisServer:
    """A private, empty Redis on a free port of loopback. `kill` and `start` make an outage: the port stays.

    With `durable`, what it held is there again after the outage.
    """

    def __init__(self, durable: bool = False) -> None:
        self.durable = durable
        self.binary = shutil.which("redis-server")
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="taskkit-redis-"))
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, database: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    def start(self) -> RedisServer:
        assert self.binary, "there is no redis-server binary on this machine"
        options = {"port": self.port, "bind": "127.0.0.1", "databases": 4096, "save": "", "dir": self.folder}
        if self.durable:
            options.update(appendonly="yes", appendfsync="always")
        command = [self.binary]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        with open(self.folder / "redis.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_until(self._answers, 15, f"redis-server on port {self.port} answers")
        return self

    def _answers(self) -> bool:
        import redis

        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"redis-server ended:\n{(self.folder / 'redis.log').read_text()}")
        with redis.Redis(port=self.port, socket_timeout=2) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    def kill(self) -> None:
        """End it at once; what it held is gone, unless it is durable."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class _Redis:
    """The session's Redis: hands out databases that nobody else uses."""

    def __init__(self) -> None:
        self.server: RedisServer | None = None
        address = os.environ.get("TASKKIT_TEST_REDIS_URL")
        if address is None and shutil.which("redis-server"):
            self.server = RedisServer().start()
            self.numbers = itertools.count()
        self.address = address or "redis://127.0.0.1:6379"

    def claim(self) -> str:
        """The address of an empty database; it is ours until `release`."""
        if self.server is not None:
            return self.server.url(next(self.numbers))
        import redis

        base = self.address.rsplit("/", 1)[0] if self.address.count("/") > 2 else self.address
        for number in range(15, -1, -1):
            url = f"{base}/{number}"
            try:
                with redis.Redis.from_url(url, socket_timeout=3) as client:
                    if client.dbsize() == 0 and client.set("taskkit-test-owner", os.getpid(), nx=True):
                        return url
            except redis.ConnectionError as error:
                unavailable(f"no Redis at {url}: {error}")
        unavailable(f"all 16 databases of the Redis at {base} hold keys; empty one for the tests")

    def release(self, url: str) -> None:
        import redis

        with (
            redis.Redis.from_url(url, socket_timeout=3) as client,
            contextlib.suppress(redis.ConnectionError),
        ):
            client.flushdb()

    def close(self) -> None:
        if self.server is not None:
            self.server.close()


class _RabbitMQ:
    """The session's RabbitMQ: a virtual host of its own where ``rabbitmqctl`` works, else the one in the URL."""

    def __init__(self) -> None:
        self.vhost: str | None = None
        given = os.environ.get("TASKKIT_TEST_RABBITMQ_URL")
        self.url = given or "amqp://guest:guest@127.0.0.1:5672//"
        with kombu.Connection(self.url, connect_timeout=3) as connection:
            try:
                connection.ensure_connection(max_retries=1, interval_start=0.2)
            except (OSError, OperationalError, *connection.connection_errors) as error:
                unavailable(f"no RabbitMQ at {connection.as_uri()}: {error}")
        if given is None:
            vhost = f"taskkit-{os.getpid()}-{uuid.uuid4().hex[:6]}"
            if _rabbitmqctl("add_vhost", vhost):
                self.vhost = vhost
                if _rabbitmqctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*"):
                    self.url = f"amqp://guest:guest@127.0.0.1:5672/{vhost}"

    def close(self) -> None:
        if self.vhost is not None:
            _rabbitmqctl("delete_vhost", self.vhost)


def _rabbitmqctl(*arguments: str) -> bool:
    binary = shutil.which("rabbitmqctl")
    if binary is None:
        return False
    try:
        done = subprocess.run([binary, "-q", *arguments], capture_output=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


_services: dict[type, Any] = {}


def _service(kind: type[T]) -> T:
    if kind not in _services:
        _services[kind] = kind()
    return _services[kind]


def close_services() -> None:
    """End what was started for the session: the private Redis, the virtual host."""
    while _services:
        _services.popitem()[1].close()


atexit.register(close_services)


# Brokers.


class Broker:
    """One queue on one real broker, known to no other test.

    `settings` is a plain dict of Celery settings (JSON-able); change it before you start a worker.
    """

    name: str

    def __init__(self) -> None:
        self.queue = f"taskkit-{uuid.uuid4().hex[:12]}"
        self._queues = [self.queue]
        self.settings: dict[str, Any] = {
            "task_default_queue": self.queue,
            "broker_connection_retry_on_startup": True,
            "worker_log_color": False,
        }

    def queue_named(self, suffix: str) -> str:
        """Another queue name of this test's own; `cleanup` deletes that queue as well."""
        name = f"{self.queue}.{suffix}"
        if name not in self._queues:
            self._queues.append(name)
        return name

    def app(self, main: str = "producer", **settings: Any) -> Celery:
        """A plain Celery app on this broker, current nowhere: for publishing and reading results."""
        app = Celery(main, set_as_current=False, fixups=[])
        app.conf.update({**self.settings, **settings})
        return app

    @contextlib.contextmanager
    def connection(self) -> Iterator[kombu.Connection]:
        app = self.app()
        try:
            with app.connection_for_write() as connection:
                yield connection
        finally:
            app.close()

    def publish(self, body: bytes | str, queue: str | None = None, **properties: Any) -> None:
        """Put one raw message into the queue: `content_type`, `content_encoding`, `headers` as given."""
        queue = queue or self.queue
        properties = {"content_type": "application/json", "content_encoding": "utf-8", **properties}
        with self.connection() as connection, connection.Producer(auto_declare=False) as producer:
            self._declare(connection, queue)
            producer.publish(body, exchange="", routing_key=queue, serializer=None, **properties)

    def _declare(self, connection: kombu.Connection, queue: str) -> None:
        app = self.app()
        app.amqp.queues.select_add(queue)(connection.default_channel).declare()
        app.close()

    def message_count(self, queue: str | None = None) -> int:
        """Messages ready in the queue; those a worker holds unacknowledged are not counted."""
        with self.connection() as connection:
            return connection.default_channel._size(queue or self.queue)

    def cleanup(self) -> None:
        """Delete the queues, keys and files of this test, and nothing else."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.queue}>"


class RedisBroker(Broker):
    name = "redis"

    def __init__(self) -> None:
        super().__init__()
        self.url = _service(_Redis).claim()
        self.settings.update(broker_url=self.url, result_backend=self.url)

    def unacknowledged_count(self) -> int:
        """Messages that a worker fetched and has not acknowledged."""
        with self.connection() as connection:
            channel = connection.default_channel
            return channel.client.hlen(channel.unacked_key)

    def cleanup(self) -> None:
        _service(_Redis).release(self.url)


class RabbitMQBroker(Broker):
    """Classic queues. Results go to Redis, where chords work."""

    name = "rabbitmq"

    def __init__(self) -> None:
        super().__init__()
        self.url = _service(_RabbitMQ).url
        self.results = _service(_Redis).claim()
        self.settings.update(broker_url=self.url, result_backend=self.results)

    def message_count(self, queue: str | None = None) -> int:
        with self.connection() as connection:
            try:
                declared = connection.default_channel.queue_declare(queue or self.queue, passive=True)
            except connection.channel_errors:
                return 0
            return declared.message_count

    def cleanup(self) -> None:
        _service(_Redis).release(self.results)
        with self.connection() as connection:
            for name in self._queues:
                connection.default_channel.queue_delete(name)
                connection.default_channel.exchange_delete(name)


class RabbitMQQuorumBroker(RabbitMQBroker):
    """Quorum queues with a topic exchange, which is what Celery's native delayed delivery needs."""

    name = "rabbitmq-quorum"

    def __init__(self) -> None:
        super().__init__()
        self.settings.update(task_default_queue_type="quorum", task_default_exchange_type="topic")


class FilesystemBroker(Broker):
    """Our own filesystem transport, in a folder that is deleted afterwards."""

    name = "filesystem"

    def __init__(self) -> None:
        super().__init__()
        module = "django_taskkit.transports.filesystem"
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            unavailable(f"{module} cannot be imported")
        self.folder = Path(tempfile.mkdtemp(prefix="taskkit-filesystem-"))
        (self.folder / "results").mkdir()
        self.settings.update(
            broker_url="filesystem://",
            broker_transport=f"{module}:Transport",
            broker_transport_options={"folder": str(self.folder / "messages"), "polling_interval": 0.1},
            result_backend=f"file://{self.folder / 'results'}",
        )

    def cleanup(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def open_broker(name: str) -> Iterator[Broker]:
    """A `Broker` by name, cleaned up at the end; for fixtures of another scope than `broker`'s."""
    kinds = {kind.name: kind for kind in (RedisBroker, RabbitMQBroker, RabbitMQQuorumBroker, FilesystemBroker)}
    broker = kinds[name]()
    try:
        yield broker
    finally:
        broker.cleanup()


# Workers.


class Worker:
    """``python -m celery -A <app> worker`` in a process group of its own."""

    def __init__(
        self,
        app: str,
        broker: Broker,
        *,
        pool: str = "prefork",
        concurrency: int = 1,
        queues: Sequence[str] = (),
        arguments: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        env: Mapping[str, str | None] | None = None,
        folder: Path,
    ) -> None:
        self.name = f"w{uuid.uuid4().hex[:8]}"
        self.log_path = Path(folder) / f"{self.name}.log"
        self.command = [
            *(sys.executable, "-m", "celery", "-A", app, "worker", f"--pool={pool}"),
            *(f"--concurrency={concurrency}", "--loglevel=INFO", f"--hostname={self.name}@localhost"),
            *([f"--queues={','.join(queues)}"] if queues else []),
            *arguments,
        ]
        self.env = _worker_environment({**broker.settings, **(settings or {})}, env or {})
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 60) -> Worker:
        """Returns when the worker says that it is ready."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.env, stdout=log, stderr=log, start_new_session=True
            )

        def ready() -> bool:
            if not self.alive:
                raise AssertionError(f"the worker ended with {self.process.returncode}:\n{self.log_tail()}")
            return " ready." in self.log()

        try:
            wait_until(ready, timeout, f"worker {self.name} is ready")
        except BaseException:
            self._kill_group()
            raise
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None, "the worker was not started"
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def children(self) -> list[int]:
        """The pids of the pool's processes (prefork)."""
        listing = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in listing.stdout.split()]

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def log_tail(self, lines: int = 80) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def wait_for_log(self, text: str, timeout: float = 30) -> None:
        wait_until(lambda: text in self.log(), timeout, f"{text!r} in the log of worker {self.name}")

    def wait(self, timeout: float = 30) -> int:
        """Its exit code, once it has ended by itself."""
        assert self.process is not None, "the worker was not started"
        return self.process.wait(timeout)

    def stop(self, timeout: float = 15) -> None:
        """Warm shutdown (TERM); after `timeout` seconds, KILL. Safe to call twice."""
        if self.alive:
            os.kill(self.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(timeout)
        self._kill_group()

    def kill(self) -> None:
        """kill -9 of the parent alone, as the kernel's OOM killer would; `stop` ends what it left behind."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait(10)

    def _kill_group(self) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


def _worker_environment(settings: Mapping[str, Any], extra: Mapping[str, str | None]) -> dict[str, str]:
    path = [str(ROOT), str(HERE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    values: dict[str, str | None] = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, dict.fromkeys(path))),
        "PYTHONUNBUFFERED": "1",
        "C_FORCE_ROOT": "1",  # containers run as root; Celery then refuses to accept pickle
        SETTINGS_VARIABLE: json.dumps(settings),
        **extra,
    }
    return {name: value for name, value in values.items() if value is not None}


running_workers: list[Worker] = []
"""Workers whose log a failing test shows; see conftest."""


@contextlib.contextmanager
def workers(folder: Path) -> Iterator[Callable[..., Worker]]:
    """A factory for started workers, all of which are stopped at the end."""
    started: list[Worker] = []

    def start_worker(app: str, broker: Broker, *, ready_within: float = 60, **options: Any) -> Worker:
        worker = Worker(app, broker, folder=folder, **options)
        started.append(worker)
        running_workers.append(worker)
        return worker.start(ready_within)

    try:
        yield start_worker
    finally:
        for worker in started:
            worker.stop()
            running_workers.remove(worker)
