"""The servers behind the brokers, one of each per test session, started when first needed."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import kombu
from kombu.exceptions import OperationalError
from waiting import free_port, unavailable, wait_until

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class Server:
    """A private, empty server on a free port of loopback. `kill` and `start` make an outage: the port stays."""

    program: str

    def __init__(self) -> None:
        self.binary = shutil.which(self.program)
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="taskkit-server-"))
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def installed(self) -> bool:
        return self.binary is not None

    def start(self) -> Self:
        assert self.binary, f"there is no {self.program} on this machine"
        with open(self.log, "ab") as log:
            command = [self.binary, *self.options()]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_until(self._runs_and_answers, 60, f"{self.program} on port {self.port} answers")
        return self

    def options(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def _runs_and_answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.program} ended with {self.process.returncode}:\n{self.log.read_text()}")
        return self.answers()

    def kill(self) -> None:
        """End it at once; what it held is gone, unless it is durable."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class RedisServer(Server):
    """A Redis. With `durable`, what it held is there again after an outage."""

    program = "redis-server"

    def __init__(self, durable: bool = False) -> None:
        super().__init__()
        self.durable = durable

    def url(self, database: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    def options(self) -> list[str]:
        options = {"port": self.port, "bind": "127.0.0.1", "databases": 4096, "save": "", "dir": self.folder}
        if self.durable:
            options.update(appendonly="yes", appendfsync="always")
        return [word for name, value in options.items() for word in (f"--{name}", str(value))]

    def answers(self) -> bool:
        import redis

        with redis.Redis(port=self.port, socket_timeout=2) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False


class MemcachedServer(Server):
    """A memcached."""

    program = "memcached"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def options(self) -> list[str]:
        # Root has to name a user; any other may not.
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        return ["-l", "127.0.0.1", "-p", str(self.port), "-U", "0", *user]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as connection:
                connection.sendall(b"version\r\n")
                return connection.recv(100).startswith(b"VERSION")
        except OSError:
            return False


class Redis:
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
        return unavailable(f"all 16 databases of the Redis at {base} hold keys; empty one for the tests")

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


class RabbitMQ:
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


def service(kind: type[T]) -> T:
    if kind not in _services:
        _services[kind] = kind()
    return _services[kind]


def close_services() -> None:
    """End what was started for the session: the private Redis, the virtual host."""
    while _services:
        _services.popitem()[1].close()


atexit.register(close_services)
