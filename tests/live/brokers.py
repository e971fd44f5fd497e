"""One queue on one real broker for each test, known to no other."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
from celery import Celery
from services import RabbitMQ, Redis, service
from waiting import unavailable

BROKERS = ("redis", "rabbitmq", "rabbitmq-quorum", "filesystem")


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
        self.url = service(Redis).claim()
        self.settings.update(broker_url=self.url, result_backend=self.url)

    def unacknowledged_count(self) -> int:
        """Messages that a worker fetched and has not acknowledged."""
        with self.connection() as connection:
            channel = connection.default_channel
            return channel.client.hlen(channel.unacked_key)

    def cleanup(self) -> None:
        service(Redis).release(self.url)


class RabbitMQBroker(Broker):
    """Classic queues. Results go to Redis, where chords work."""

    name = "rabbitmq"

    def __init__(self) -> None:
        super().__init__()
        self.url = service(RabbitMQ).url
        self.results = service(Redis).claim()
        self.settings.update(broker_url=self.url, result_backend=self.results)

    def message_count(self, queue: str | None = None) -> int:
        with self.connection() as connection:
            try:
                declared = connection.default_channel.queue_declare(queue or self.queue, passive=True)
            except connection.channel_errors:
                return 0
            return declared.message_count

    def cleanup(self) -> None:
        service(Redis).release(self.results)
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
