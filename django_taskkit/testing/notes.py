"""What a block has seen: messages that were sent, retries, deaths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from celery import signals
from celery.exceptions import Retry
from celery.utils.time import maybe_iso8601

from django_taskkit.running import running_under
from django_taskkit.signals import DeadLettered, task_dead_lettered
from django_taskkit.testing.events import Retried, Sent


class Notes:
    """Takes notes while :meth:`taken` lasts."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.sent: list[Sent] = []
        self.retries: list[Retried] = []
        self.dead: list[int] = []
        """Primary keys of dead letters, in the order of their deaths."""

    @contextmanager
    def taken(self) -> Iterator[None]:
        signals.task_retry.connect(self._on_retry)
        task_dead_lettered.connect(self._on_death)
        try:
            yield
        finally:
            signals.task_retry.disconnect(self._on_retry)
            task_dead_lettered.disconnect(self._on_death)

    def sending(self, name: str, message: Any, options: dict[str, Any]) -> Sent | None:
        """Return the note of a message that is being sent; None if it runs the running task once more."""
        headers, properties, body, _event = message
        if isinstance(body, dict):  # Celery's first protocol
            facts, args, kwargs = body, body.get("args"), body.get("kwargs")
        else:
            facts, (args, kwargs, *_embedded) = headers, body
        request = running_under(facts.get("id"))
        if request is not None and request.task == name:
            return None
        eta = self._moment(facts.get("eta"))
        queue = options.get("queue")
        return Sent(
            task=name,
            id=str(facts.get("id")),
            args=tuple(args or ()),
            kwargs=dict(kwargs or {}),
            queue=str(getattr(queue, "name", queue) or ""),
            delay=max(0.0, (eta - _now()).total_seconds()) if eta else 0.0,
            eta=eta,
            priority=properties.get("priority", options.get("priority")),
            headers=dict(headers),
        )

    def _moment(self, eta: Any) -> datetime | None:
        moment: datetime | None = maybe_iso8601(eta) if eta else None
        if moment is None or moment.tzinfo:
            return moment
        return moment.replace(tzinfo=self._app.timezone)

    def _on_retry(self, sender: Any = None, request: Any = None, reason: Any = None, **kwargs: Any) -> None:
        if not isinstance(reason, Retry):  # a shutdown says so, and retries nothing
            return
        when = reason.when
        delay = (when - _now()).total_seconds() if isinstance(when, datetime) else float(when or 0)
        self.retries.append(
            Retried(
                task=sender.name,
                id=str(request.id),
                attempt=request.retries + 1,
                delay=delay,
                exception=reason.exc,
                counted=not getattr(request, "taskkit_uncounted", False),
            )
        )

    def _on_death(self, event: DeadLettered, **kwargs: Any) -> None:
        self.dead.append(event.dead_letter_id)


def _now() -> datetime:
    return datetime.now(timezone.utc)
