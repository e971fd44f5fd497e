"""What Sentry is told of a death, and which events say the same once more."""

from __future__ import annotations

import sys
import uuid
from collections import deque
from collections.abc import Mapping
from typing import Any

import sentry_sdk
from django.db import router
from django.urls import reverse
from sentry_sdk import utils
from sentry_sdk.scope import should_send_default_pii

from django_taskkit import conf
from django_taskkit.dlq.models import DeadLetter, Reason
from django_taskkit.dlq.privacy import named_arguments, redacted
from django_taskkit.dlq.text import class_of, message_of
from django_taskkit.envelope import REQUEST_ID_HEADER
from django_taskkit.observability.logs.context import lane_of, named_in
from django_taskkit.signals import DeadLettered

WAITS = "taskkit_sentry_waits"
"""The attribute of a run's request with the event that waits for the run's dead letter, and its hint."""

_DEATHS = uuid.UUID("6c0b7b0e-5f0e-4f43-9d6c-2b7a2c1d9a55")
"""The namespace of the ids of deaths."""

_CONTEXT = "dead letter"
_LONGEST_TAG = 200
_WARNINGS = frozenset({Reason.EXPIRED.value})
"""Reasons that are what somebody has asked for, and may still be news."""

_COLUMNS = ("queue", "worker", "release", "fingerprint", "traceback", "headers", "died_at", "body_ran", "root_id")

_SAID_AGAIN = (
    "Hard time limit",
    "Task handler raised error",
    "Received unregistered task",
    "Received invalid task message",
    "Can't decode message body",
)
"""How Celery's error lines begin that follow a death; without this integration they are all that Sentry gets."""

_PROCESS_ENDED = "Process %r pid:%r exited with %r"
"""What billiard says of a process of the pool, by its logger ``multiprocessing``."""

_known: deque[tuple[str, str, str]] = deque(maxlen=50)
"""Task id, class and message of the deaths that this process has told of last."""

_ended: deque[Any] = deque(maxlen=50)
"""The processes of this worker's pool in which these tasks ran."""


def event_id_of(task_id: str, generation: int) -> str:
    """Return the id of the event that tells of this death, whoever tells of it."""
    return uuid.uuid5(_DEATHS, f"{task_id} {generation}").hex


def link_to(dead_letter_id: int) -> str:
    """Return where the admin shows the dead letter; empty without ``TASKKIT["SITE_URL"]``, or without such a page."""
    site = conf.current().site_url.rstrip("/")
    if not site:
        return ""
    try:
        return site + reverse("admin:django_taskkit_deadletter_change", args=[dead_letter_id])
    except Exception:  # no admin, or a URLconf that can't be imported in a worker
        return ""


def of_run(death: DeadLettered) -> tuple[Any, Any, dict[str, Any]]:
    """Return the task that runs in this thread if it is the one that died, its exc_info, and an event of the error.

    None, None and ``{}`` if another process ran it, or nothing did.
    """
    task = _running()
    if task is None or str(task.request.id) != death.task_id:
        return None, None, {}
    waiting = getattr(task.request, WAITS, None)
    if waiting is not None:
        return task, waiting[1]["exc_info"], waiting[0]
    exc_info = sys.exc_info()
    if exc_info[1] is None or class_of(exc_info[1]) != death.exception_class:
        return task, None, {}
    return task, exc_info, {}


def waiting_run(event: Any, hint: Any) -> Any:
    """Return the request of the run that ``event`` is the failure of, if a dead letter may follow; else None."""
    values = (event.get("exception") or {}).get("values") or [{}]
    if "exc_info" not in hint or (values[-1].get("mechanism") or {}).get("type") != "celery":
        return None
    task = _running()
    if task is None or task.request.is_eager or not _is_captured(task):
        return None
    return task.request


def note_death(death: DeadLettered) -> None:
    """Remember that Sentry was told of ``death``."""
    _known.append((death.task_id, death.exception_class, death.exception_message))
    state: Any = sys.modules.get("celery.worker.state")
    request = state.requests.get(death.task_id) if state is not None else None
    if request is not None:
        _ended.append(request.worker_pid)


def is_of_known_death(hint: Any) -> bool:
    """Say whether an event is a line of Celery's log about a death that Sentry was told of, or will be in a moment."""
    record = hint.get("log_record")
    if record is None:
        return False
    if record.msg == _PROCESS_ENDED and isinstance(record.args, tuple) and len(record.args) == 3:
        return _ran_something(record.args[1])
    if not record.name.startswith("celery.") or not _known:
        return False
    if any(task_id == named_in(record)[0] for task_id, _class, _message in _known):
        return True
    if not str(record.msg).startswith(_SAID_AGAIN):
        return False
    args = record.args if isinstance(record.args, tuple) else ()
    if any(isinstance(arg, Mapping) and arg.get("id") == death[0] for arg in args for death in _known):
        return True  # the headers of a message
    # An exception has a wrapping about it that billiard gives it on its way here, and is itself among the arguments.
    said = [exc for exc in ((hint.get("exc_info") or (None, None))[1], *args) if isinstance(exc, BaseException)]
    limit = conf.current().message_max_length
    return any((class_of(exc), message_of(exc, limit)) == death[1:] for exc in said for death in _known)


def of_dead_letter(death: DeadLettered, *, group: bool) -> dict[str, Any]:
    """Return the event that tells of ``death``: what the row says, or as much as is known if it can't be read."""
    row = _row_of(death)
    headers = row.get("headers") or {}
    queue = row.get("queue", "")
    link = link_to(death.dead_letter_id)
    module, _dot, kind = death.exception_class.rpartition(".")
    tags = {
        "taskkit.task": death.task_name,
        "taskkit.reason": death.reason,
        "taskkit.attempt": death.attempts,
        "taskkit.lane": lane_of(queue) or queue,
        "taskkit.release": row.get("release"),
        "taskkit.dead_letter": death.dead_letter_id,
        "taskkit.requeues": death.generation or None,
        "taskkit.request_id": headers.get(REQUEST_ID_HEADER),
        "taskkit.link": link if len(link) <= _LONGEST_TAG else None,
        "celery_task_id": death.task_id,
    }
    facts = {
        "link": link,
        "task": death.task_name,
        "task id": death.task_id,
        "root id": row.get("root_id"),
        "reason": death.reason,
        "attempts": death.attempts,
        "queue": queue,
        "worker": row.get("worker"),
        "body ran": row.get("body_ran"),
        "died at": row["died_at"].isoformat() if row else None,
        "traceback": row.get("traceback"),
        "arguments": row.get("arguments"),
    }
    said: dict[str, Any] = {
        "event_id": event_id_of(death.task_id, death.generation),
        "level": "warning" if death.reason in _WARNINGS else "error",
        "transaction": death.task_name,
        "tags": {name: str(value)[:_LONGEST_TAG] for name, value in tags.items() if value not in (None, "")},
        "contexts": {_CONTEXT: {name: value for name, value in facts.items() if value not in (None, "")}},
        "exception": {
            "values": [
                {
                    "type": kind or death.reason,
                    "module": module or None,
                    "value": death.exception_message,
                    "mechanism": {"type": "taskkit", "handled": False},
                }
            ]
        },
    }
    if row.get("release"):
        said["release"] = row["release"]
    if group and row.get("fingerprint"):
        said["fingerprint"] = ["taskkit", row["fingerprint"]]
    return said


def _row_of(death: DeadLettered) -> dict[str, Any]:
    with_arguments = _may_send_arguments()
    try:
        rows = DeadLetter.objects.using(router.db_for_write(DeadLetter))
        row = rows.filter(pk=death.dead_letter_id).first()
        if row is None:
            return {}
        found = {name: getattr(row, name) for name in _COLUMNS}
    except Exception:  # the event goes without what the database doesn't say
        return {}
    if with_arguments:
        found["arguments"] = _arguments_of(row)
    return found


def _may_send_arguments() -> bool:
    """Say whether the project lets Sentry have the arguments of tasks, by either of the SDK's two options."""
    options: Any = sentry_sdk.get_client().options
    is_chosen = getattr(utils, "has_data_collection_enabled", None)  # not in older releases of the SDK
    if is_chosen is not None and is_chosen(options):
        return bool(options["data_collection"]["queues"])
    return should_send_default_pii()


def _arguments_of(row: DeadLetter) -> Any:
    from celery.app import app_or_default

    try:
        args, kwargs, _embed = row.envelope.payload()
        return redacted(named_arguments(app_or_default(), row.task_name, args, kwargs), conf.current().redact)
    except Exception:  # pickled, or no task message at all
        return None


def _running() -> Any:
    state: Any = sys.modules.get("celery._state")
    return state.get_current_worker_task() if state is not None else None


def _is_captured(task: Any) -> bool:
    from django_taskkit.worker.capture import wants_capture

    return wants_capture(task)


def _ran_something(pid: Any) -> bool:
    """Say whether a task runs in the process ``pid`` of this worker's pool, or was killed there a moment ago."""
    if pid in _ended:
        return True
    state: Any = sys.modules.get("celery.worker.state")
    if state is None:
        return False
    return any(request.worker_pid == pid and _is_captured(request.task) for request in list(state.active_requests))
