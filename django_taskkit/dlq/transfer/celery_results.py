"""Make dead letters of the failures that django-celery-results has stored, as far as they hold arguments.

A result is no message: what is not known of it (chain, chord, links, headers, priority, retries) is not made up. The
arguments are there if the project had ``result_extended = True``, as a text for people, which is read where it says for
sure what they were.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from celery import Celery, states
from django.apps import apps
from django.db.models import QuerySet
from kombu.exceptions import KombuError
from kombu.serialization import dumps, loads

from django_taskkit import conf
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.grouping import fingerprint_at
from django_taskkit.dlq.models import DeadLetterEvent, Reason
from django_taskkit.dlq.text import bounded, shortened, storable
from django_taskkit.dlq.transfer.argument_texts import UNREADABLE, UnreadableArgumentsError, arguments_in
from django_taskkit.dlq.transfer.portable import Letter
from django_taskkit.envelope import SAFE_CONTENT, Envelope
from django_taskkit.exceptions import TaskkitError

TaskResult = Any
"""Of ``django_celery_results.models``, which a project may not have, and whose stubs lack columns."""

NOTE = "from django-celery-results, which does not know its chain, chord, links, headers, priority and retries"

NAMELESS = "its task's name was not stored, which takes result_extended = True"
NO_ARGUMENTS = "its arguments were not stored, which takes result_extended = True"
NEVER_RAN = "it never ran: it waited in a chain for a task that failed"
PICKLED = "its arguments were stored as a pickle, which is not opened"
NO_QUEUE = "its queue can't be told: its route leads to none"

CHUNK = 200
"""Results that are held in memory at a time."""

_FRAME = re.compile(r'^  File "(.+)", line \d+, in (.+)$', re.MULTILINE)


class NoResultsError(TaskkitError):
    """The project has no django-celery-results."""


class NoMessageError(TaskkitError):
    """A result does not say what the message was; the message is one of the sentences above."""


def failures(since: datetime | None = None, until: datetime | None = None) -> QuerySet[TaskResult]:
    """Return the results of tasks that failed, not before ``since``, and before ``until``.

    Raises:
        NoResultsError: the project doesn't use django-celery-results.
    """
    if not apps.is_installed("django_celery_results"):
        raise NoResultsError(
            "django-celery-results is not in INSTALLED_APPS; "
            'install it (pip install "django-taskkit[results]") and add "django_celery_results", '
            "on the database that has the results"
        )
    model: Any = apps.get_app_config("django_celery_results").get_model("TaskResult")
    results: QuerySet[Any] = model._default_manager.filter(status=states.FAILURE)
    if since:
        results = results.filter(date_done__gte=since)
    return results.filter(date_done__lt=until) if until else results


def letters(app: Celery, results: QuerySet[TaskResult]) -> Iterator[tuple[str, Letter | NoMessageError]]:
    """Yield a task id for each of ``results``, and its dead letter, or why there is none."""
    # A process that is no worker has mostly not imported the tasks, whose options say where they go.
    app.loader.import_default_modules()
    last = 0
    while chunk := list(results.filter(pk__gt=last).order_by("pk")[:CHUNK]):
        for result in chunk:
            try:
                yield result.task_id, letter_of(app, result)
            except NoMessageError as exc:
                yield result.task_id, exc
        last = chunk[-1].pk


def letter_of(app: Celery, result: TaskResult) -> Letter:
    """Return the dead letter of a failure.

    Raises:
        NoMessageError: the result doesn't say what the message was.
    """
    if not result.task_name:
        raise NoMessageError(NAMELESS)
    args, kwargs = _arguments(result, "task_args"), _arguments(result, "task_kwargs")
    if _never_ran(result):
        raise NoMessageError(NEVER_RAN)
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, Mapping):
        raise NoMessageError(UNREADABLE)  # a project may store anything in the place of the arguments
    envelope = _envelope(app, result, args, dict(kwargs))
    exception_class, message = _exception(result)
    traceback = shortened(storable(result.traceback or ""), conf.current().traceback_max_length)
    frames = _FRAME.findall(traceback)
    death = Death(
        envelope=envelope,
        task_name=result.task_name,
        reason=Reason.EXCEPTION,
        died_at=result.date_done,
        exception_class=exception_class,
        exception_message=message,
        traceback=traceback,
        fingerprint=fingerprint_at(result.task_name, exception_class, ":".join(frames[-1]) if frames else ""),
        worker=result.worker or "",
        release="",  # the one that is running now may be another
    )
    died = {
        "kind": DeadLetterEvent.Kind.DIED,
        "at": result.date_done,
        "note": shortened(": ".join(filter(None, [exception_class, message])), 1000),
    }
    return Letter(columns={"task_id": bounded(result.task_id), **death.columns()}, events=(died,))


def _never_ran(result: TaskResult) -> bool:
    """Say whether the task waited in a chain for one that failed.

    Celery stores that failure for all that follow, with no worker, and with the arguments of the signature itself, to
    which the result of the task before it is still to be added. Those of a message of the first protocol are stored
    themselves as well, but by a worker that has a name.
    """
    if result.worker:
        return False
    try:
        return not isinstance(_decoded(result, result.task_args), str)
    except ValueError:
        return False  # a text, as earlier releases stored it


def _arguments(result: TaskResult, name: str) -> Any:
    stored = getattr(result, name)
    if stored is None or stored == "":
        raise NoMessageError(NO_ARGUMENTS)
    try:
        value = _decoded(result, stored)
    except ValueError:
        value = stored  # as earlier releases stored it, without an encoding around it
    if not isinstance(value, str):
        return value  # a message of Celery's first protocol, whose arguments are stored themselves
    try:
        return arguments_in(value)
    except UnreadableArgumentsError as exc:
        raise NoMessageError(str(exc)) from exc


def _decoded(result: TaskResult, stored: str) -> Any:
    """Return what the result backend encoded.

    Raises:
        NoMessageError: it is a pickle, or something else that could run code.
        ValueError: it is not what its content type says.
    """
    if result.content_type not in SAFE_CONTENT:
        raise NoMessageError(PICKLED)
    try:
        data: Any = b64decode(stored) if result.content_encoding == "binary" else stored
        return loads(data, result.content_type, result.content_encoding, accept=SAFE_CONTENT)
    except (KombuError, binascii.Error, LookupError, TypeError, RecursionError) as exc:
        raise ValueError(str(exc)) from exc


def _envelope(app: Celery, result: TaskResult, args: Any, kwargs: dict[str, Any]) -> Envelope:
    meta = _meta(result)
    known: Any = {name: str(meta[name]) for name in ("root_id", "parent_id") if meta.get(name)}
    try:
        message = app.amqp.as_task_v2(result.task_id, result.task_name, args, kwargs, **known)
        content_type, encoding, body = dumps(message.body, serializer="json")
    except Exception as exc:  # bytes in a key, a set, a text that is no Unicode: none of it was in the message
        raise NoMessageError(UNREADABLE) from exc
    headers = dict(message.headers)
    if result.periodic_task_name:
        headers["periodic_task_name"] = result.periodic_task_name
    exchange, routing_key, queue = _route(app, result.task_name, args, kwargs)
    return Envelope(
        body=body if isinstance(body, bytes) else body.encode(),
        content_type=content_type,
        content_encoding=encoding,
        headers=headers,
        properties={**message.properties, "delivery_mode": 2, "priority": 0},
        exchange=exchange,
        routing_key=routing_key,
        queue=queue,
    )


def _route(app: Celery, name: str, args: Any, kwargs: dict[str, Any]) -> tuple[str, str, str]:
    """Return exchange, routing key and queue to which the app would send the task now."""
    task: Any = app.tasks.get(name)
    try:
        options = task._get_exec_options() if task is not None else {}
        route = app.amqp.router.route(dict(options), name, args, kwargs, task_type=task)
        queue = route["queue"]
    except Exception as exc:  # a project's own router may raise anything
        raise NoMessageError(NO_QUEUE) from exc
    if isinstance(queue, str):
        return "", queue, queue
    own = queue.exchange
    if own is None or own.type == "direct":
        return "", queue.name, queue.name
    return own.name, route.get("routing_key") or queue.routing_key or "", queue.name


def _meta(result: TaskResult) -> Mapping[str, Any]:
    try:
        meta = _decoded(result, result.meta or "")
    except (ValueError, NoMessageError):
        return {}
    return meta if isinstance(meta, Mapping) else {}


def _exception(result: TaskResult) -> tuple[str, str]:
    """Return class and message, from the stored result or else from the traceback's last line."""
    limit = conf.current().message_max_length
    try:
        stored = _decoded(result, result.result or "")
    except (ValueError, NoMessageError):
        stored = None
    if isinstance(stored, Mapping) and stored.get("exc_type"):
        module, kind, text = stored.get("exc_module"), stored["exc_type"], stored.get("exc_message", "")
        prefix = f"{module}." if module and module != "builtins" else ""
        if isinstance(text, (list, tuple)):
            text = text[0] if len(text) == 1 else ", ".join(map(str, text))
        plain = text if isinstance(text, str) else json.dumps(text, default=str)
        return bounded(f"{prefix}{kind}"), shortened(storable(plain), limit)
    last = next((line for line in reversed((result.traceback or "").splitlines()) if line.strip()), "")
    kind, _colon, text = last.partition(": ")
    return (bounded(kind) if re.fullmatch(r"[\w.]+", kind) else ""), shortened(storable(text), limit)
