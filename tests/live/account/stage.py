"""Where one run plays: a broker, a Redis for results and a database, private to it, that may be killed."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kombu
import redis
from servers import PostgreSQLServer, RabbitMQServer
from services import RedisServer
from waiting import unavailable

from account.ledger import TOKEN, Reader
from account.projects import PROJECTS, Project, transport_settings

QUEUE = "account"
VISIBILITY_TIMEOUT = 12
"""Seconds after which Redis delivers again what a worker has not acknowledged; RabbitMQ does so at once."""

_BASE64 = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")

Letter = tuple[str, str, list[str]]
"""Task id, reason, and the items named in its body."""


class Stage:
    """The servers of one run, and how to look into them past Celery."""

    def __init__(
        self, broker: str, project: str, durable: bool = True, visibility_timeout: int = VISIBILITY_TIMEOUT
    ) -> None:
        self.broker = broker
        self.durable = durable
        self.visibility_timeout = visibility_timeout
        self.name = project
        self.project: Project = PROJECTS[project]
        self.folder = Path(tempfile.mkdtemp(prefix=f"taskkit-account-{broker}-"))
        self.results = RedisServer()
        self.messages = RedisServer(durable=durable) if broker == "redis" else RabbitMQServer()
        self.unreadable: dict[str, str] = {}
        """What RabbitMQ says of queues that it lists and can't read."""
        self.database = PostgreSQLServer() if self.project.ours else None

    @property
    def settings(self) -> dict[str, Any]:
        """Celery's settings."""
        common = {
            "broker_url": self.messages.url(),
            "result_backend": self.results.url(),
            "task_default_queue": QUEUE,
            "broker_connection_retry_on_startup": True,
            "broker_connection_max_retries": None,
            "worker_log_color": False,
            "worker_lost_wait": 2.0,
            "task_publish_retry_policy": {"max_retries": 2, "interval_start": 0.1, "interval_max": 0.2},
        }
        if self.broker == "redis":
            common["broker_transport_options"] = {
                "visibility_timeout": self.visibility_timeout,
                "unacked_restore_interval": 1,
                "unacked_restore_throttle": 1,
            }
        if self.broker == "rabbitmq-quorum":
            common.update(task_default_queue_type="quorum", task_default_exchange_type="topic")
        return {**common, **self.project.settings, **transport_settings(self.project, self.broker)}

    def __enter__(self) -> Stage:
        for server in self._servers():
            if not server.installed:
                unavailable(f"there is no server to start for {type(server).__name__}")
        try:
            with ThreadPoolExecutor() as starting:
                list(starting.map(lambda server: server.start(), self._servers()))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        if isinstance(self.messages, RabbitMQServer):
            self.messages.keep_log(self.folder)
        for server in self._servers():
            server.close()

    def _servers(self) -> list[Any]:
        return [server for server in (self.results, self.messages, self.database) if server is not None]

    # What is where. None of this asks Celery or django_taskkit.

    def ledger(self) -> Reader:
        return Reader(self.folder / "ledger.jsonl")

    def ready(self) -> int:
        """Messages that wait in the queue and are with no worker."""
        with kombu.Connection(self.messages.url()) as connection:
            if self.broker == "redis":
                return int(connection.default_channel._size(QUEUE))
            return int(connection.default_channel.queue_declare(QUEUE, passive=True).message_count)

    def held(self) -> set[str]:
        """Items that Redis holds; from now on it takes no more."""
        with self._redis() as client:
            client.client_pause(10_000, all=False)
        return {item for names in self.waiting().values() for item in names}

    def waiting(self) -> dict[str, Counter[str]]:
        """Items at the broker, by queue. Empties RabbitMQ's queues: for the end, when no worker runs."""
        found: dict[str, Counter[str]] = {}
        for queue, text in self._texts():
            found.setdefault(queue, Counter()).update(set(TOKEN.findall(text)))
        return found

    def _texts(self) -> Iterator[tuple[str, str]]:
        if isinstance(self.messages, RabbitMQServer):
            yield from self._rabbitmq_texts()
            return
        with self._redis() as client:
            for key in client.scan_iter(count=1000):
                for value in _values(client, key):
                    yield key.decode(), _readable(value)

    def _redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.messages.url())

    def _rabbitmq_queues(self) -> list[str]:
        assert isinstance(self.messages, RabbitMQServer)
        return [name for name in self.messages.queues() if "pidbox" not in name and "celeryev" not in name]

    def _rabbitmq_texts(self) -> Iterator[tuple[str, str]]:
        for queue in self._rabbitmq_queues():
            with kombu.Connection(self.messages.url()) as connection:
                channel = connection.channel()
                while True:
                    try:
                        message = channel.basic_get(queue, no_ack=True)
                    except connection.connection_errors as exc:
                        self.unreadable[queue] = str(exc)
                        break
                    if message is None:
                        break
                    raw = message.body if isinstance(message.body, bytes) else str(message.body).encode()
                    yield queue, f"{_readable(raw)} {message.headers}"

    def states(self) -> dict[str, str]:
        """Every state in the result backend, by task id."""
        prefix = "celery-task-meta-"
        with redis.Redis.from_url(self.results.url()) as client:
            keys = list(client.scan_iter(match=f"{prefix}*", count=1000))
            values = client.mget(keys) if keys else []
        return {
            key.decode().removeprefix(prefix): json.loads(value)["status"]
            for key, value in zip(keys, values, strict=True)
            if value
        }

    def letters(self) -> list[Letter]:
        """The dead letters."""
        rows = self._rows("SELECT task_id, reason, body FROM django_taskkit_deadletter")
        return [(task_id, reason, TOKEN.findall(_text(body))) for task_id, reason, body in rows]

    def outbox(self) -> Counter[str]:
        """Items in messages that wait in the outbox."""
        rows = self._rows("SELECT row_to_json(row)::text, body FROM django_taskkit_outboxmessage AS row")
        return Counter(item for text, body in rows for item in set(TOKEN.findall(text + _text(body))))

    def spooled(self) -> Counter[str]:
        """Items in the local files of the spool."""
        files = [path for path in (self.folder / "spool").rglob("*") if path.is_file()]
        found = Counter()
        for path in files:
            for line in path.read_text(errors="replace").splitlines():
                found.update(set(TOKEN.findall(_readable(line.encode()))))
        return found

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        if self.database is None:
            return []
        import psycopg  # not where unit tests are collected

        address = {"host": "127.0.0.1", "port": self.database.port, "user": "postgres", "dbname": "postgres"}
        deadline = time.monotonic() + 20
        while True:
            try:
                with psycopg.connect(**address, connect_timeout=3) as connection:
                    return connection.execute(query).fetchall()
            except psycopg.errors.UndefinedTable:
                return []
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)


def _values(client: redis.Redis, key: bytes) -> list[bytes]:
    kind = client.type(key)
    if kind == b"list":
        return list(client.lrange(key, 0, -1))
    if kind == b"hash":
        return list(client.hvals(key))
    if kind == b"zset" and not key.endswith(b"unacked_index"):
        return list(client.zrange(key, 0, -1))
    return []


def _readable(value: bytes, depth: int = 3) -> str:
    """The text, and that of every base64 body in it: a spooled dead letter is a message in a message."""
    text = value.decode("utf-8", "replace")
    decoded = []
    for body in _BASE64.findall(text) if depth else ():
        with contextlib.suppress(ValueError):
            decoded.append(_readable(base64.b64decode(body), depth - 1))
    return " ".join([text, *decoded])


def _text(body: object) -> str:
    raw = bytes(body) if isinstance(body, (bytes, memoryview)) else str(body).encode()
    return _readable(raw)
