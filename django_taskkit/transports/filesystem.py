"""A broker in a folder that keeps what it was given: kombu's filesystem transport, made durable.

The life of a message: it is written to ``tmp/``, synced to the disk and renamed into ``ready/<queue>/``. A consumer
takes it by renaming it into its process's own ``inflight/<owner>/<queue>/`` and acknowledges it by deleting it. A
process holds a lock on its in-flight folder while it lives; once the lock is free, the next consumer to look renames
what is left back into ``ready/``. Each step is one rename in one file system, so a message is always in exactly one
place, whole. (Stock kombu deletes on receipt: kill -9 loses the message.)

    broker_url = "filesystem://"
    broker_transport = "django_taskkit.transports.filesystem:Transport"
    broker_transport_options = {"folder": "/var/lib/project/broker"}

Options: ``folder`` (required; a local disk, one operating system user), ``polling_interval`` (0.1 seconds)
and ``fsync`` (True; without it messages survive the death of any process, but not a power cut).
"""

from __future__ import annotations

import heapq
import logging
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

from django.core.exceptions import ImproperlyConfigured

if os.name != "posix":
    raise ImproperlyConfigured(
        "django_taskkit.transports.filesystem needs POSIX file locks and renames, which Windows lacks: "
        "use a Redis or RabbitMQ broker_url there, or run in WSL."
    )

from kombu.exceptions import ChannelError
from kombu.transport import filesystem, virtual
from kombu.utils.json import dumps, loads

from django_taskkit.transports.folders import NO_FILE, NO_MESSAGE, delete_older, encode, names_in, sync_folder
from django_taskkit.transports.ownership import inherit, own_folder, owned

logger = logging.getLogger(__name__)

SWEEP_INTERVAL = 5.0  #: seconds between two looks for dead owners
LISTING_LENGTH = 100  #: messages per listing of a queue: a backlog of n costs n/100 per message, not n
LISTING_AGE = 1.0  #: seconds a listing is used, so that an urgent message waits no longer behind an old one
LEFTOVER_AGE = 3600.0  #: seconds after which a file in ``tmp/`` must be that of a writer that died
TRANSIENT = 1  #: AMQP's delivery mode of messages that need not survive
AGAIN = ".again"  #: ends the file name of a redelivered message: marking it and moving it are one rename


class QoS(virtual.QoS):  # type: ignore[misc,unused-ignore]
    """Deletes a message's file when it is acknowledged or refused; kombu does the rest."""

    channel: Channel

    def ack(self, delivery_tag: str) -> None:
        self.channel._discard(delivery_tag)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if not requeue:
            self.channel._discard(delivery_tag)
        super().reject(delivery_tag, requeue)


class Channel(filesystem.Channel):  # type: ignore[misc,unused-ignore]
    """Sends, takes, settles and gives back messages; a delivery tag is a path below ``inflight/``."""

    QoS = QoS

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        # Kept here: a message may be acknowledged after its channel was closed and lost the connection.
        self.folder: Path = connection.folder
        self.temporary: set[str] = connection.temporary
        self.ready, self.inflight, self.tmp = (self.folder / name for name in ("ready", "inflight", "tmp"))
        self.fsync = bool(self.transport_options.get("fsync", True))
        self._listings: dict[str, tuple[list[str], float]] = {}
        self._sweep_at = 0.0
        for folder in (self.folder, self.ready, self.inflight, self.tmp, self.control_folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    control_folder = property(lambda self: self.folder / "control")
    processed_folder = property(lambda self: self.folder / "processed")
    data_folder_in = data_folder_out = property(lambda self: self.ready)

    def _put(  # type: ignore[override,unused-ignore]
        self, queue: str, payload: dict[str, Any], **kwargs: Any
    ) -> None:
        """Return once the message is whole in its queue, and on the disk unless it is transient.

        A queue is made if need be, so that no task is lost for want of a declaration. A transient message sent
        straight to a queue that is not there is dropped, as AMQP does: an rpc result for a client that is gone
        must not bring its queue back.
        """
        place, properties = self.ready / encode(queue), payload["properties"]
        transient = properties.get("delivery_mode") == TRANSIENT
        if transient and not properties["delivery_info"].get("exchange") and not place.is_dir():
            return
        # The wall clock, as the order has to hold across a reboot.
        name = f"{self._get_message_priority(payload, reverse=True)}{time.time_ns():020d}-{uuid.uuid4().hex}"
        try:
            self._make_queue(place)
            self._write(place / name, dumps(payload), sync=self.fsync and not transient)
        except OSError as exc:
            raise ChannelError(f"Cannot write a message to {place}: {exc}") from exc

    def _make_queue(self, place: Path) -> None:
        if not place.is_dir():
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.fsync:
                sync_folder(place.parent)

    def _write(self, path: Path, text: str, sync: bool) -> None:
        temporary = self.tmp / uuid.uuid4().hex
        try:
            with open(temporary, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(text)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)
        if sync:
            sync_folder(path.parent)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        """Take the oldest of the most urgent messages; of two consumers, that has it whose rename works."""
        if time.monotonic() >= self._sweep_at:
            self._sweep()
            self._sweep_at = time.monotonic() + SWEEP_INTERVAL
        place = encode(queue)
        while names := self._upcoming(place):
            taken = own_folder(self.folder) / place / names.pop()
            try:
                os.rename(self.ready / place / taken.name, taken)
            except FileNotFoundError:  # another consumer was faster
                continue
            if payload := self._read(taken):
                return payload
        raise Empty

    def _upcoming(self, place: str) -> list[str]:
        """Names of the next messages, the very next one last."""
        names, listed_at = self._listings.get(place, ([], 0.0))
        if not names or time.monotonic() - listed_at > LISTING_AGE:
            self._make_queue(self.ready / place)  # what is being read exists, whoever deleted it
            names = heapq.nsmallest(LISTING_LENGTH, names_in(self.ready / place))[::-1]
            self._listings[place] = names, time.monotonic()
            if names:
                (own_folder(self.folder) / place).mkdir(mode=0o700, exist_ok=True)
        return names

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            payload: dict[str, Any] = loads(path.read_bytes())
            # A tag for each delivery: copies of a message in several queues bear the same sender's tag.
            payload["properties"]["delivery_tag"] = str(path.relative_to(self.inflight))
            payload["properties"]["delivery_info"]["redelivered"] = path.name.endswith(AGAIN)
            self.Message(payload, channel=self)  # what kombu cannot read now would kill the worker later
        except (*NO_MESSAGE, *NO_FILE) as exc:
            aside = self.folder / "broken" / path.parent.name / path.name
            aside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.rename(aside)
            logger.error("Moved a message that cannot be read (%r) out of its queue, to %s", exc, aside)
            return None
        return payload

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        message: Any = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if no_ack and message is not None:
            self._discard(message.delivery_tag)
        return message

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str | None, **kwargs: Any) -> Any:
        def discard_first(message: Any) -> Any:
            self._discard(message.delivery_tag)
            return callback(message)

        if no_ack and queue in self.temporary:
            self._queue_bind("", queue, None, queue)  # see _drop_what_the_dead_read
        chosen = discard_first if no_ack else callback
        return super().basic_consume(queue, no_ack, chosen, consumer_tag, **kwargs)

    def _taken(self, delivery_tag: str) -> Path | None:
        """The file of a delivery, unless it is another process's: a fork inherits its parent's channels."""
        path, (own, _) = self.inflight / delivery_tag, owned.get(self.folder, (None, -1))
        return path if own in path.parents else None

    def _discard(self, delivery_tag: str) -> None:
        if path := self._taken(delivery_tag):
            path.unlink(missing_ok=True)  # missing: settled twice, or after its channel gave it back

    def _restore(self, message: Any) -> None:
        """Give a message back: kombu does so on requeue, and with what is unsettled as a channel closes."""
        if path := self._taken(message.delivery_tag):
            self._give_back(path)

    def _give_back(self, path: Path) -> None:
        place = self.ready / path.parent.name
        self._make_queue(place)
        with suppress(FileNotFoundError):
            path.rename(place / (path.name.removesuffix(AGAIN) + AGAIN))

    def _sweep(self) -> None:
        for owner in names_in(self.inflight):
            try:
                inherit(self.inflight / owner, self._give_back)
            except OSError as exc:  # the next sweep tries again; the living go on working
                logger.warning("Cannot give back the messages in %s: %s", self.inflight / owner, exc)
        self._drop_what_the_dead_read()
        delete_older(self.tmp, LEFTOVER_AGE)

    def _drop_what_the_dead_read(self) -> None:
        """Drop dead processes' bindings of temporary queues, and the queues they alone read without acks.

        These are the queues of remote control, events and rpc results, which would fill the disk: nobody promised
        to keep what nobody acknowledges. A temporary queue that *is* acknowledged may hold tasks. Such a reader is
        noted as a binding to the default exchange, where AMQP has every queue bound.
        """
        noted = list(self.control_folder.glob("*/*.?*"))
        living = names_in(self.inflight)  # listed last: an owner's folder is older than its bindings
        for path, binding in self._bindings(p for p in noted if p.name.partition(".")[2] not in living):
            path.unlink(missing_ok=True)
            if path.parent.name == encode("") and binding not in self.get_table(""):
                self._remove_queue(binding.queue)

    def _bindings(self, paths: Iterable[Path]) -> Iterator[tuple[Path, filesystem.exchange_queue_t]]:
        for path in paths:
            with suppress(FileNotFoundError):
                yield path, filesystem.exchange_queue_t(*loads(path.read_bytes()))

    def get_table(self, exchange: str) -> list[Any]:
        paths = (self.control_folder / encode(exchange)).glob("*")
        return list({binding for _, binding in self._bindings(paths)})

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str | None, queue: str) -> None:
        """Note a binding, in a file of its own: no process ever changes another's, so none needs a lock."""
        text = dumps([routing_key or "", pattern or "", queue])
        owner = own_folder(self.folder).name if queue in self.temporary else ""
        path = self.control_folder / encode(exchange) / f"{uuid.uuid5(uuid.NAMESPACE_OID, text).hex}.{owner}"
        if not path.exists():
            self._make_queue(path.parent)
            self._write(path, text, sync=True)

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        self._make_queue(self.ready / encode(queue))
        if kwargs.get("auto_delete") or kwargs.get("exclusive"):
            self.temporary.add(queue)

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        for path, binding in self._bindings(self.control_folder.glob("*/*")):
            if binding.queue == queue:
                path.unlink(missing_ok=True)
        self._remove_queue(queue)

    def _remove_queue(self, queue: str) -> None:
        self._purge(queue)
        with suppress(OSError):  # not empty: somebody sent a message just now, and it stays
            (self.ready / encode(queue)).rmdir()

    def _size(self, queue: str) -> int:
        return len(names_in(self.ready / encode(queue)))

    def _purge(self, queue: str) -> int:
        paths = [self.ready / encode(queue) / name for name in names_in(self.ready / encode(queue))]
        for path in paths:
            path.unlink(missing_ok=True)
        return len(paths)


#: What this process declared in each broker folder, and which of the queues are temporary.
_declared: defaultdict[Path, tuple[virtual.BrokerState, set[str]]] = defaultdict(lambda: (virtual.BrokerState(), set()))


class Transport(filesystem.Transport):  # type: ignore[misc,unused-ignore]
    """Chosen by ``broker_transport = "django_taskkit.transports.filesystem:Transport"``."""

    Channel = Channel
    polling_interval = 0.1
    default_connection_params = property(lambda self: {})  # no host: no warning that the URL names none

    def __init__(self, client: Any, **kwargs: Any) -> None:
        if not client.transport_options.get("folder"):
            raise ImproperlyConfigured(
                'The filesystem broker has no folder: add "folder" to broker_transport_options, an absolute '
                "path to a directory that all web and worker processes of the project share."
            )
        super().__init__(client, **kwargs)
        self.folder = Path(os.path.abspath(os.path.expanduser(client.transport_options["folder"])))
        # Per folder: kombu does not repeat a binding that its state has, and a second folder would miss it.
        self.state, self.temporary = _declared[self.folder]
