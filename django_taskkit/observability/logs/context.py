"""Which task and which web request a log line belongs to, told when it is written.

A task that logs nothing pays nothing. What is found is kept with the run, for its next line.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from types import FrameType
from typing import Any

from django.conf import settings

from django_taskkit.envelope import RAW_MESSAGE, REQUEST_ID_HEADER
from django_taskkit.origin import origin_of
from django_taskkit.request_ids import of_request

KEYS = ("task", "task_id", "root_id", "parent_id", "attempt", "queue", "lane", "request_id", "worker")
"""What a line may say of its task. ``attempt`` is a number, the first run is 1; all others are texts."""

LANES = "TASKKIT_LANES"
"""The setting in which ``routing.lanes()`` describes the project's lanes, by name."""

carried_facts: ContextVar[Mapping[str, Any] | None] = ContextVar("taskkit_carried", default=None)
"""What `carrying.carried` has brought here."""

_PLACES = re.compile(r"%(?:\(\w+\))?[-+ #0]*(?:\d+|\*)?(?:\.\d+)?([a-zA-Z%])")
_NAME_AND_ID = "%s[%s]"

_FRAMES = 30
"""How many calls back the worker's message handler is looked for; logging itself takes a dozen."""

_HANDLERS = {"task_message_handler": "req", "on_timeout": "self", "on_failure": "self"}
"""Celery's functions that write about a message, and which of their variables it is."""


def facts_here() -> dict[str, Any]:
    """Return what :data:`KEYS` are of the task or web request that runs in this thread; what is unknown is left out."""
    request, name, app = _running()
    if request is not None:
        return {**_of_run(request, name, app)}
    if (carried_here := carried_facts.get()) is not None:
        return {**carried_here}
    return _known(request_id=of_request.get())


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what :data:`KEYS` are of the task or web request that ``record`` is about.

    That is the task that runs in this thread. The worker's own process runs none (prefork), or others (threads): there
    the record itself names its task, as Celery's records do, and the message that the worker has says the rest.
    """
    found = facts_here()
    if "task_id" not in found:
        task_id, name = named_in(record)
        if task_id:
            found = {**found, **_known(task=name, task_id=task_id), **_of_message(task_id)}
    if "request_id" not in found:
        # Django logs some responses after all middleware has ended.
        web: Any = getattr(record, "request", None)
        found.update(_known(request_id=getattr(web, "request_id", None)))
    return found


def _running() -> tuple[Any, str, Any]:
    """Return request, name and app of the task that runs in this thread."""
    state: Any = sys.modules.get("celery._state")
    task = state.get_current_worker_task() if state is not None else None
    return (None, "", None) if task is None else (task.request, task.name, task.app)


def _of_run(request: Any, name: str, app: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] | None = getattr(request, "taskkit_facts", None)
    if found is None:
        raw = getattr(request, RAW_MESSAGE, None)
        request_id = getattr(request, REQUEST_ID_HEADER, None) or (request.headers or {}).get(REQUEST_ID_HEADER)
        found = _known(
            task=name,
            task_id=request.id,
            root_id=request.root_id,
            parent_id=request.parent_id,
            attempt=(request.retries or 0) + 1,
            **_places(app, request.delivery_info, raw),
            request_id=request_id or of_request.get(),
            worker=request.hostname,
        )
        request.taskkit_facts = found
    return found


def _of_message(task_id: str) -> dict[str, Any]:
    """Return what the worker's own process knows of a message that it has received."""
    state: Any = sys.modules.get("celery.worker.state")
    if state is None:
        return {}
    request = state.requests.get(task_id) or _handled_here(task_id)
    if request is None:
        return {}
    headers = request.request_dict
    return _known(
        task=request.name,
        root_id=headers.get("root_id"),
        parent_id=headers.get("parent_id"),
        attempt=(headers.get("retries") or 0) + 1,
        **_places(request.app, request.delivery_info, headers.get(RAW_MESSAGE)),
        request_id=headers.get(REQUEST_ID_HEADER),
        worker=request.hostname,
    )


def _handled_here(task_id: str) -> Any:
    """Return the message that the worker is handling while it writes this line, and does not have on its list.

    "Task received" is written before the message is put there, and what becomes of a hard time limit after it is taken
    off again.
    """
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_FRAMES):
        if frame is None:
            break
        variable = _HANDLERS.get(frame.f_code.co_name)
        request = frame.f_locals.get(variable) if variable else None
        if getattr(request, "id", None) == task_id and hasattr(request, "request_dict"):
            return request
        frame = frame.f_back
    return None


def named_in(record: logging.LogRecord) -> tuple[str, str]:
    """Return id and name of the task that ``record`` names, as Celery's own and this package's do; empty if none."""
    data = getattr(record, "data", None)
    if isinstance(data, Mapping) and data.get("id") and "name" in data:
        return str(data["id"]), str(data["name"])
    message, args = record.msg, record.args
    if isinstance(message, str) and isinstance(args, tuple) and _NAME_AND_ID in message:
        before = message[: message.index(_NAME_AND_ID)]
        place = sum(kind != "%" for kind in _PLACES.findall(before))
        if len(args) > place + 1:
            return str(args[place + 1]), str(args[place])
    return "", ""


def _places(app: Any, delivery: Any, raw: Any) -> dict[str, Any]:
    queue = origin_of(app, {**(delivery or {}), "queue": raw[4] if raw else None})[2]
    return {"queue": queue, "lane": lane_of(queue)}


def lane_of(queue: str) -> str:
    """Return the name of the project's lane that has this queue; empty if none has."""
    lanes = getattr(settings, LANES, None)
    if queue and isinstance(lanes, Mapping):
        for name, options in lanes.items():
            if (options.get("queue") or name) == queue:
                return str(name)
    return ""


def _known(**facts: Any) -> dict[str, Any]:
    return {name: value if isinstance(value, int) else str(value) for name, value in facts.items() if value}
