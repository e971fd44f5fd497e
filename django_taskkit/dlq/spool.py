"""What keeps a death while the database is down, and brings it into the table later.

:func:`keep` puts it on a durable queue of the broker that delivered the message, where the relay of any machine finds
it. If the broker is gone too, it becomes a file on this machine (:mod:`spool_files`). :func:`drain` brings in both. An
entry goes when its row is committed: a crash in between brings it in once more, and the table knows it by then.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from celery import Celery
from django.utils import timezone
from kombu import Exchange, Message, Queue

from django_taskkit import conf
from django_taskkit.dlq import rows, spool_files
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.models import Reason
from django_taskkit.dlq.pause import Pause, Troubles
from django_taskkit.dlq.project import project_app
from django_taskkit.dlq.publisher import BrokerUnreachableError, Publisher, broker_connection
from django_taskkit.dlq.reader import Reader, reader
from django_taskkit.dlq.recovery import Recovery, recovery_in
from django_taskkit.envelope import Envelope
from django_taskkit.exceptions import NoQueueError

logger = logging.getLogger("django_taskkit")

CONTENT_TYPE = "application/vnd.django-taskkit.death+json"
"""Not Celery's, so that a worker that reads the spool's queue by mistake takes no entry for a task."""

broker_pause = Pause(seconds=5)
"""A thousand tasks that fail in an outage don't each wait for the broker."""

_troubles = Troubles()


def keep(entry: Death | Recovery) -> str:
    """Put ``entry`` where it survives; returns where that is.

    Raises:
        OSError, UnsafeFolderError: neither the broker nor the disk takes it.
    """
    text = entry.as_text()
    name = conf.current().spool_queue
    if name and not broker_pause.on:
        try:
            _publish(project_app(), name, text)
        except Exception as exc:
            broker_pause.begin()
            logger.warning("the spool's queue %r takes no dead letters, files have to do: %s", name, exc)
        else:
            return f"queue {name!r}"
    return f"file {spool_files.write(text)}"


def _queue(app: Celery, name: str) -> Queue:
    arguments = {}
    if app.conf.task_default_queue_type == "quorum":
        arguments["x-queue-type"] = "quorum"
    return Queue(name, Exchange(""), routing_key=name, durable=True, queue_arguments=arguments)


def _publish(app: Celery, name: str, text: str) -> None:
    entry = Envelope(
        body=text.encode("ascii"),
        content_type=CONTENT_TYPE,
        content_encoding="utf-8",
        properties={"delivery_mode": 2},
    )
    with Publisher(app) as publisher:
        publisher.publish(entry, _queue(app, name))


def drain(app: Celery, limit: int) -> int:
    """Bring at most ``limit`` entries into the table, files first; returns how many. Several at once share the work.

    Makes the spool's queue if there is none yet. One that is made only when it is needed may be lost with what it
    holds: RabbitMQ, killed within a second or so, elects no leader for a new quorum queue afterwards.
    Stops without harm where database or broker are down, and says so in the log once.
    """
    count = drain_files(limit)
    name = conf.current().spool_queue
    if not name or count >= limit:
        return count
    try:
        with reader(app) as broker:
            # Looked at first: an entry that is taken and put back too often would reach a queue's delivery limit.
            if broker.size(name) and database_works():
                with rows.several():
                    count += _drain_queue(app, broker, name, limit - count)
    except NoQueueError:
        _make_queue(app, name)
    except BrokerUnreachableError as exc:
        _troubles.begins("broker", "the spool's queue %r can't be read: %s", name, exc)
        return count
    _troubles.ends("broker", "the spool's queue %r can be read again", name)
    return count


def _make_queue(app: Celery, name: str) -> None:
    try:
        with broker_connection(app) as connection:
            _queue(app, name)(connection.default_channel).declare()
    except Exception as exc:  # who spools tries again
        logger.warning("the spool's queue %r can't be made: %s", name, exc)


def drain_files(limit: int) -> int:
    """Bring at most ``limit`` of this machine's files into the table; returns how many."""
    count = 0
    try:
        names = spool_files.names()
        if not names or not database_works():
            return 0
        spool_files.tidy()
        with rows.several():
            for name in names:
                if count >= limit:
                    break
                taken = _bring_in(name)
                if taken is None:
                    break
                count += taken
    except (spool_files.UnsafeFolderError, OSError) as exc:
        _troubles.begins("files", "the spool's files can't be brought in: %s", exc)
        return count
    _troubles.ends("files", "the spool's files can be brought in again")
    return count


def _bring_in(name: str) -> bool | None:
    """Return whether the file became a row; None if none can now."""
    with spool_files.claimed(name) as file:
        if file is None:
            return False
        try:
            rows.bring_in(_entry_in(file.read_bytes()))
        except rows.DatabaseDownError:
            return None
        except (ValueError, rows.RowRefusedError) as exc:
            spool_files.refuse(file, exc)
            return False
        file.unlink()
        return True


def waiting(app: Celery) -> tuple[int | None, int | None]:
    """Return how many entries wait in this machine's files, and on the queue; None where that can't be told."""
    files: int | None = None
    with suppress(OSError):
        files = len(spool_files.names())
    name = conf.current().spool_queue
    if not name:
        return files, 0
    try:
        with reader(app) as broker:
            return files, broker.size(name)
    except NoQueueError:
        return files, 0
    except BrokerUnreachableError:
        return files, None


def _drain_queue(app: Celery, broker: Reader, name: str, limit: int) -> int:
    count = 0
    for message in broker.messages(name):
        entry = _entry_of(app, message, name)
        try:
            rows.bring_in(entry)
            count += 1
        except rows.DatabaseDownError:
            message.requeue()
            break
        except rows.RowRefusedError as exc:
            if not set_aside(entry, exc):
                message.requeue()
                break
        message.ack()
        if count >= limit:
            break
    return count


def _entry_in(text: str | bytes) -> Death | Recovery:
    """Return what ``text`` tells of.

    Raises:
        ValueError: nothing that belongs in the spool.
    """
    return recovery_in(text) or Death.from_text(text)


def _entry_of(app: Celery, message: Message, name: str) -> Death | Recovery:
    """Return what ``message`` tells of; what is no entry of the spool is a dead letter itself."""
    try:
        return _entry_in(message.body or b"")
    except ValueError as exc:
        logger.critical("a message in the spool's queue %r is no entry of it, and a dead letter now: %s", name, exc)
        envelope = Envelope.from_message(message, app, queue=name)
        return Death(
            envelope=envelope,
            task_name=envelope.task_name,
            reason=Reason.INVALID,
            died_at=timezone.now(),
            exception_message=f"It was in the spool's queue {name!r} and is none of its entries: {exc}",
        )


def set_aside(entry: Death | Recovery, why: Exception) -> bool:
    """Keep in a file what the table refuses, so that what is behind it gets in; False if the disk refuses it too."""
    try:
        file = spool_files.write(entry.as_text(), refused=True)
    except Exception:
        logger.critical(
            "the dead letter of task %s can be neither written nor set aside, and holds up its queue",
            entry.task_id if isinstance(entry, Recovery) else f"{entry.task_name}[{entry.envelope.task_id}]",
            exc_info=True,
        )
        return False
    spool_files.log_refused(file, why)
    return True


def database_works() -> bool:
    """Say whether dead letters can be written now; the log hears of it when that changes."""
    if rows.works():
        _troubles.ends("database", "the database takes dead letters again")
        return True
    _troubles.begins("database", "the database takes no dead letters; they stay where they are")
    return False
