"""The hook in Celery's publish function: what the broker doesn't take waits in the outbox.

``apply_async``, ``send_task``, canvas, retries, links, chord bodies and beat all publish through the function that
:meth:`AMQP._create_task_sender` makes. The function itself stays as it is. It gets a stand-in for the producer that
sees the finished message: so signals are sent once, and Celery alone decides what a message looks like.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from types import FrameType
from typing import Any

from amqp.exceptions import AMQPError, MessageNacked
from celery import Celery, signals
from django.db import connections, router
from kombu.exceptions import EncodeError, OperationalError

from django_taskkit import conf
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.models import Reason
from django_taskkit.dlq.publisher import ANSWER_TIMEOUT
from django_taskkit.dlq.recorder import record
from django_taskkit.envelope import REQUEST_ID_HEADER, SENT_AT_HEADER, WAITS_FOR_HEADER
from django_taskkit.exceptions import PublishError
from django_taskkit.outbox import UNTIL_DUE, delays
from django_taskkit.outbox.brokers import is_relays_broker
from django_taskkit.outbox.keeping import envelope_of, eta_of, exchange_name, is_in_transaction, keep
from django_taskkit.outbox.model import OutboxMessage, OutboxReason
from django_taskkit.outbox.presence import watch
from django_taskkit.request_ids import current_request_id
from django_taskkit.running import running_under

logger = logging.getLogger("django_taskkit")

RELAY_TASK = "taskkit.relay"
"""The task that empties the outbox can't wait in it."""

LEAST_PAUSE, LONGEST_PAUSE = 2.0, 30.0
"""Seconds for which a broker that could not be reached is not tried again."""


undecided: ContextVar[str] = ContextVar("django_taskkit.outbox.undecided", default="")
"""While ``after_task_publish`` is sent: the database whose open transaction decides whether the task is sent at all."""


class Outage:
    """Knows that the broker was out of reach a moment ago, so that not every message of a request waits for it.

    The pause is as long as the attempt that failed: at most half of the time goes into a broker that is away.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._until = 0.0

    def goes_on(self) -> bool:
        return self._until > 0 and self.clock() < self._until

    def begin(self, attempt: float) -> None:
        self._until = self.clock() + min(max(attempt, LEAST_PAUSE), LONGEST_PAUSE)

    def end(self) -> None:
        self._until = 0.0


class TaskProducer:
    """Stands in for a producer while one task is published: its first message is the task, what follows are events."""

    __slots__ = (
        "_app",
        "_choice",
        "_is_asked",
        "_is_away",
        "_is_kept",
        "_message",
        "_outage",
        "_producer",
        "_task_name",
        "_until_due",
    )

    def __init__(
        self,
        producer: Any,
        app: Celery,
        outage: Outage,
        task_name: str,
        choice: str,
        is_asked: bool = False,
        until_due: bool = False,
    ) -> None:
        self._producer = producer
        self._app = app
        self._outage = outage
        self._task_name = task_name
        self._choice = choice
        self._message: tuple[Any, dict[str, Any]] = (None, {})
        self._is_asked = is_asked
        self._until_due = until_due
        self._is_away = self._is_kept = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(self, body: Any, **options: Any) -> Any:
        """Publish the task, or keep it; publish an event about it unless it was kept."""
        if self._is_away:
            # An error goes to Celery's dispatcher, which keeps the event for later.
            return None if self._is_kept else self._producer.publish(body, **options)
        headers = options.get("headers") or {}
        if "id" in headers:  # protocol 1 has its own in the body, and no headers
            headers[SENT_AT_HEADER] = time.time()
            if request_id := current_request_id():
                headers[REQUEST_ID_HEADER] = request_id
        # RabbitMQ would drop the message by itself when its time is up, and nobody would know. The worker looks at
        # the header.
        if options.get("expiration") is not None and (headers.get("expires") or _of_protocol_1(body, "expires")):
            del options["expiration"]
        if options.get("confirm_timeout") is None:
            options["confirm_timeout"] = ANSWER_TIMEOUT
        self._message = (body, options)
        if self._choice != "never" and self._waits_from_the_start():
            self._is_away = self._is_kept = True
            return None
        result = self._producer.publish(body, **options)
        self._is_away = True
        if self._outage._until:
            self._outage.end()
        return result

    def keep_after(self, exc: Exception, attempt: float) -> bool:
        """Keep the task that could not be published because of ``exc``; True if the caller has nothing to do."""
        if self._is_away:  # the task is sent: the caller would only send it again
            logger.warning("task %s was sent, its task-sent event was not: %r", self._task_name, exc)
            return True
        if self._choice == "never" or not self._message[1] or not self._may_pass(exc):
            return False
        if not is_relays_broker(self._producer.connection):
            return False
        if _is_unreachable(exc, self._producer.connection):
            self._outage.begin(attempt)
        body, options = self._message
        try:
            self._keep(OutboxReason.PUBLISH_FAILED, error=exc)
        except Exception:  # the caller gets the error of the broker, as without us
            logger.exception("task %s could not be published, and the outbox doesn't take it", self._task_name)
            return False
        headers = options.get("headers")
        signals.after_task_publish.send(
            sender=self._task_name,
            body=body,
            headers=headers,
            exchange=options.get("exchange"),
            routing_key=options.get("routing_key"),
        )
        return True

    def bury(self, exc: Exception) -> bool:
        """Record a chord's body that could be neither published nor kept; True if it is safe.

        Celery swallows the error, and the results of the chord with it. Everybody else gets it raised.
        """
        body, options = self._message
        if not options or self._is_away or not _is_for_a_chord():
            return False
        envelope = envelope_of(self._app, body, options)
        return record(Death.by_exception(envelope, exc, reason=Reason.PUBLISH_FAILED, task_name=self._task_name))

    def _waits_from_the_start(self) -> bool:
        if self._choice == "always":
            reason = OutboxReason.TRANSACTIONAL
        elif self._outage.goes_on():
            reason = OutboxReason.PUBLISH_FAILED
        elif self._is_long_delay():
            if not watch.is_alive():
                watch.warn_once("long delay", f"task {self._task_name} has a delay longer than its broker holds safely")
                return False
            reason = OutboxReason.PUT_OFF if self._until_due else OutboxReason.LONG_DELAY
        else:
            return False
        if not is_relays_broker(self._producer.connection):
            if self._is_asked:
                raise PublishError(
                    f"outbox=True: the relay publishes to the broker of the project's own Celery app, not to "
                    f"{self._producer.connection.as_uri()}; send task {self._task_name} without it."
                )
            return False
        try:
            self._keep(reason)
        except (EncodeError, TypeError):
            raise
        except Exception:
            if reason is OutboxReason.TRANSACTIONAL and is_in_transaction() and not self._is_own_fate():
                raise
            logger.exception("the outbox doesn't take task %s; it goes to the broker", self._task_name)
            return False
        return True

    def _is_own_fate(self) -> bool:
        """Say whether this is a retry, or what the running task is replaced by: that is no part of its data."""
        body, options = self._message
        task_id = (options.get("headers") or {}).get("id") or _of_protocol_1(body, "id")
        return running_under(task_id) is not None

    def _is_long_delay(self) -> bool:
        body, options = self._message
        eta = eta_of(body, options)
        if not eta:
            return False
        if self._until_due:
            return delays.seconds_until(eta, self._app) > 0
        natively = "celery_delayed" in exchange_name(options)
        hold = delays.safe_hold(self._app, self._producer.connection.transport.driver_type, natively=natively)
        return delays.seconds_until(eta, self._app) > hold

    def _keep(self, reason: OutboxReason, error: Exception | None = None) -> None:
        body, options = self._message
        why = (options.get("headers") or {}).get(WAITS_FOR_HEADER) if reason is OutboxReason.PUT_OFF else ""
        due = self._is_long_delay()
        keep(self._app, self._task_name, body, options, reason, until_due=due, error=error, why=str(why or ""))
        using = router.db_for_write(OutboxMessage)
        if connections[using].in_atomic_block and not self._is_own_fate():
            undecided.set(using)
        if not watch.is_alive():
            watch.warn_once("outbox", f"task {self._task_name} waits in the outbox")

    def _may_pass(self, exc: Exception) -> bool:
        connection = self._producer.connection
        kinds = (OperationalError, OSError, AMQPError, MessageNacked)
        return isinstance(exc, (*kinds, *connection.connection_errors, *connection.channel_errors))


def choice_for(app: Celery, task_name: str, option: bool | str | None) -> str:
    """Return ``"always"``, ``"on_failure"`` or ``"never"``: by the call, else by the task, else by the setting."""
    if option == UNTIL_DUE:
        option = None
    if task_name == RELAY_TASK:
        return "never"
    if option is None:
        registry: Any = app._tasks  # type: ignore[attr-defined]  # ``app.tasks`` would finalize the app
        option = getattr(registry.get(task_name), "outbox", None)
    if option is True:
        return "always"
    return "never" if option is False else conf.current().outbox


def with_outbox(send: Callable[..., Any], app: Celery) -> Callable[..., Any]:
    """Return Celery's function that publishes a task message, with the outbox behind it."""
    outage = Outage()

    def send_task_message(
        producer: Any, name: str, message: Any, *args: Any, outbox: bool | str | None = None, **options: Any
    ) -> Any:
        stand_in = TaskProducer(
            producer, app, outage, name, choice_for(app, name, outbox), outbox is True, outbox == UNTIL_DUE
        )
        started = outage.clock()
        before = undecided.set("")
        try:
            return send(stand_in, name, message, *args, **options)
        except Exception as exc:
            if not stand_in.keep_after(exc, outage.clock() - started) and not stand_in.bury(exc):
                raise
        finally:
            undecided.reset(before)

    return send_task_message


def _is_for_a_chord() -> bool:
    """Say whether a result backend is sending the body of a chord, or what is called because it failed.

    Told by the stack, since it is asked only when all else has failed: each backend has a way of its own.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name in ("on_chord_part_return", "unlock_chord"):
            return True
        frame = frame.f_back
    return False


def _of_protocol_1(body: Any, name: str) -> Any:
    return body.get(name) if isinstance(body, dict) else None


def _is_unreachable(exc: BaseException, connection: Any) -> bool:
    """Say whether the broker could not be reached; it is there when it refuses one message."""
    return isinstance(exc.__cause__ or exc, (OSError, *connection.connection_errors))
