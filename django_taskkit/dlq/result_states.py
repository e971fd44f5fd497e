"""Set the results of requeued tasks back, for those who look at them meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from celery import Celery, states
from celery.app.task import Context
from django.db import transaction

from django_taskkit.envelope import Envelope, UndecodableError

logger = logging.getLogger("django_taskkit")


class ResultStates:
    """Stores *PENDING* as the state of tasks, as far as the result backend lets it."""

    def __init__(self, app: Celery, using: str) -> None:
        self._backend: Any = app.backend
        self._using = using
        self._works: bool | None = None

    def look(self) -> None:
        """See whether the backend answers, once: while rows are locked would be the wrong time to wait for it."""
        if self._works is None:
            self._try(lambda: self._backend.get_task_meta("taskkit-probe", cache=False))

    def reset(self, envelopes: Iterable[Envelope]) -> None:
        """Set the states back, before the tasks are sent: a worker may be quick. Never raises."""
        if self._works:
            self._try(lambda: self._reset(envelopes))

    def _reset(self, envelopes: Iterable[Envelope]) -> None:
        # A backend may keep its results in this very database, where an error would undo what surrounds it.
        with transaction.atomic(using=self._using):
            for envelope in envelopes:
                request = Context({**envelope.headers, **envelope.properties})
                for task_id in (envelope.task_id, *_following(envelope)):
                    self._backend.store_result(task_id, None, states.PENDING, request=request)

    def _try(self, action: Any) -> None:
        try:
            action()
        except Exception as exc:
            self._works = False
            logger.warning("requeue: the result states are left as they are: %s: %s", type(exc).__name__, exc)
        else:
            self._works = True


def _following(envelope: Envelope) -> Iterator[str]:
    """Yield the ids of the tasks that follow in its chain: Celery has failed them with the one that died."""
    try:
        _args, _kwargs, embed = envelope.payload()
        steps = (embed or {}).get("chain") or ()
    except (UndecodableError, AttributeError):
        return
    for step in steps if isinstance(steps, (list, tuple)) else ():
        options = step.get("options") if isinstance(step, Mapping) else None
        if isinstance(options, Mapping) and isinstance(options.get("task_id"), str):
            yield options["task_id"]
