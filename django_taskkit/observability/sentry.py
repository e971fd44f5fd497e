"""Sentry hears of every death once, when nothing runs again by itself, with a link to the dead letter.

    sentry_sdk.init(dsn=..., integrations=[TaskkitIntegration()])

Sentry's own ``CeleryIntegration`` goes on as before: traces, crons, and what fails in tasks whose failures become no
dead letter. What it would say of a run that raised waits here until the dead letter is written, some milliseconds
later, and is then said once, with all that is known. What happens outside the task's body it doesn't see: a killed
process, the hard time limit, ``Reject``, a retry that could not be sent, an expired message, one that no worker knows
or can read. Those are told of from the dead letter.

The event of a death has an id that is made of the task's id and its number of requeues. Where two processes tell of
the same death (the worker at once, the relay when the database works again), Sentry takes the first: it knows the ids
of an hour (getsentry/sentry#14363).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sentry_sdk
from celery import signals as celery_signals
from django.apps import apps
from sentry_sdk.integrations import Integration
from sentry_sdk.utils import capture_internal_exceptions, event_from_exception

from django_taskkit.envelope import GENERATION_HEADER
from django_taskkit.signals import DeadLettered, task_dead_lettered

# Settings import this module, before Django's apps are there: what knows the models is imported when it is needed.

OURS = "taskkit"
"""The key by which the hint of an event says that it is of this integration."""

QUIET = ("revoked",)
"""Reasons that somebody has chosen."""


class TaskkitIntegration(Integration):
    """Report deaths of tasks to Sentry; see the module.

    Args:
        quiet: reasons of death that are not reported; ``"revoked"`` if not given.
        group: whether Sentry groups these events as the admin does (one issue for each of its groups, by task, class
            of the exception and place in the code), or by its own rules.
    """

    identifier = "taskkit"

    def __init__(self, *, quiet: Collection[str] = QUIET, group: bool = True) -> None:
        self.quiet = frozenset(quiet)
        self.group = group

    @staticmethod
    def setup_once() -> None:
        from sentry_sdk import scope

        # First of all: what waits must not be taken for sent by Sentry's DedupeIntegration.
        scope.global_event_processors.insert(0, _process)
        task_dead_lettered.connect(_on_death, dispatch_uid="django_taskkit.observability.sentry", weak=False)
        # The worker's last word on a run, whatever became of it.
        celery_signals.task_postrun.connect(_on_end, dispatch_uid="django_taskkit.observability.sentry", weak=False)
        celery_signals.worker_process_init.connect(
            _on_fork, dispatch_uid="django_taskkit.observability.sentry", weak=False
        )


def _integration() -> TaskkitIntegration | None:
    return sentry_sdk.get_client().get_integration(TaskkitIntegration)


def _on_fork(**kwargs: Any) -> None:
    """Give a process of the pool a transport of its own.

    A worker that has told of a death has a thread which waits for the next event. The process that is forked then, for
    the one that was killed, inherits the queue with that thread's place in it, and its own first event would wake up
    nobody: it would wait for the second (sentry_sdk 2.75, ``sentry_sdk._queue``).
    """
    client: Any = sentry_sdk.get_client()
    if client.is_active() and _integration() is not None:
        with capture_internal_exceptions():
            client.__setstate__({"options": client.options})  # as in a process that it was sent to


def _process(event: Any, hint: Any) -> Any:
    """Keep an event of a run that may be its last, drop what says a death again, and hide secrets in what is sent."""
    if event.get("type") or not apps.ready or _integration() is None:
        return event
    from django_taskkit.observability.sentry_events import WAITS, is_of_known_death, waiting_run
    from django_taskkit.observability.sentry_redaction import hide_secrets

    if not hint.get(OURS):
        if is_of_known_death(hint):
            return None
        request = waiting_run(event, hint)
        if request is not None:
            # Without what the scope has added, which is added once more when it is sent.
            made = {name: event[name] for name in ("level", "exception") if name in event}
            setattr(request, WAITS, (made, {"exc_info": hint["exc_info"]}))
            return None
    # Once more when Sentry's CeleryIntegration has put the task's arguments in, by the scope of its own.
    scope: Any = sentry_sdk.get_isolation_scope()
    if scope._event_processors and hide_secrets not in scope._event_processors:
        scope.add_event_processor(hide_secrets)
    with capture_internal_exceptions():
        hide_secrets(event, hint)
    return event


def _on_death(*, event: DeadLettered, **kwargs: Any) -> None:
    integration = _integration()
    if integration is None:
        return
    from django_taskkit.observability.sentry_events import WAITS, note_death, of_dead_letter, of_run

    with capture_internal_exceptions():
        task, exc_info, made = of_run(event)
        if task is not None:
            setattr(task.request, WAITS, None)
            if exc_info is not None and isinstance(exc_info[1], tuple(task.throws or ())):
                return  # the task has said that it is expected
        if event.reason in integration.quiet:
            return
        note_death(event)
        said = of_dead_letter(event, group=integration.group)
        hint: dict[str, Any] = {}
        if exc_info is not None:
            hint = {"exc_info": exc_info}
            said["exception"] = (made or _event_of(exc_info))["exception"]
        _capture(said, hint)


def _on_end(*, task: Any = None, **kwargs: Any) -> None:
    """Say what has waited for a dead letter in vain: the database is down, or it was written before."""
    from django_taskkit.observability.sentry_events import WAITS, event_id_of

    request: Any = task.request if task is not None else None
    waiting = getattr(request, WAITS, None)
    if waiting is None:
        return
    setattr(request, WAITS, None)
    if getattr(request, "taskkit_sent_again", False) or _integration() is None:
        return
    with capture_internal_exceptions():
        made, hint = waiting
        generation = getattr(request, GENERATION_HEADER, None) or 0
        _capture({**made, "event_id": event_id_of(str(request.id), generation)}, hint)


def _event_of(exc_info: Any) -> Any:
    options = sentry_sdk.get_client().options
    made, _hint = event_from_exception(
        exc_info, client_options=options, mechanism={"type": "taskkit", "handled": False}
    )
    return made


def _capture(event: Any, hint: dict[str, Any]) -> None:
    sentry_sdk.capture_event(event, hint={**hint, OURS: True})
