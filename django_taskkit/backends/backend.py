"""The backend of ``django.tasks`` that runs tasks on Celery."""

from __future__ import annotations

import difflib
from datetime import datetime
from datetime import timezone as utc_zone
from functools import partial
from typing import Any

from celery import Celery
from celery.utils import uuid
from django.core import checks
from django.db import connections, router, transaction
from django.utils import timezone

from django_taskkit.backends import announcements, endings, rows
from django_taskkit.backends.interface import (
    DEFAULT_TASK_QUEUE_NAME,
    BaseTaskBackend,
    InvalidTaskBackend,
    Task,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
)
from django_taskkit.backends.priorities import has_priorities, number_for
from django_taskkit.backends.registration import celery_task, register
from django_taskkit.backends.running import error_of
from django_taskkit.dlq.project import has_app, project_app
from django_taskkit.envelope import DJANGO_TASK_HEADER
from django_taskkit.outbox.model import OutboxMessage
from django_taskkit.outbox.publishing import choice_for

OPTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "store": ("db", ("db",)),
    "outbox": (None, (True, False, None)),
    "on_commit": (True, (True, False)),
}
"""What ``OPTIONS`` may have: the default, and all that makes sense."""


class CeleryBackend(BaseTaskBackend):
    """Runs Django's tasks on the project's Celery app; results are rows, failures are dead letters."""

    supports_defer = True
    supports_async_task = True
    supports_get_result = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        chosen = _chosen(alias, self.options)
        self.outbox: bool | None = chosen["outbox"]
        self.on_commit: bool = chosen["on_commit"]
        endings.install()

    @property
    def supports_priority(self) -> bool:  # type: ignore[override]
        """Whether the broker knows priorities: all that Celery has settings for here do, but SQS."""
        return not has_app() or has_priorities(project_app())

    def validate_task(self, task: Task[Any, Any]) -> None:
        """Say whether the task can be run, and make it known to Celery: a worker knows those that it has imported."""
        super().validate_task(task)
        register(task)

    def enqueue(self, task: Task[Any, Any], args: Any, kwargs: Any) -> TaskResult[Any, Any]:
        """Write the result's row and send the message.

        In a transaction the row is a part of it, and the message is sent when it is committed, or with ``outbox``
        written in the very same transaction; ``task_enqueued`` is told of what is committed. A message that can't be
        sent leaves a result that failed, and raises.
        """
        self.validate_task(task)
        app = project_app()
        result: TaskResult[Any, Any] = TaskResult(
            task=task,
            id=uuid(),
            status=TaskResultStatus.READY,
            enqueued_at=timezone.now(),
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=list(args),
            kwargs=dict(kwargs),
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        using = rows.database()
        is_eager = bool(app.conf.task_always_eager)
        is_transactional = (
            not is_eager
            and choice_for(app, task.module_path, self.outbox) == "always"
            and router.db_for_write(OutboxMessage) == using
        )
        is_open = _is_in_transaction(using)
        if is_transactional:
            with transaction.atomic(using=using):
                rows.insert(result)
                if is_open:  # first, in case the outbox has something to do then as well
                    transaction.on_commit(partial(announcements.enqueued, result), using=using)
                self._send(app, result)
            if not is_open:
                announcements.enqueued(result)
            return result
        rows.insert(result)
        send = partial(self._tell_and_send, app, result)
        if self.on_commit and is_open:
            transaction.on_commit(send, using=using)
            return result
        send()
        if is_eager:
            result.refresh()
        return result

    def get_result(self, result_id: str) -> TaskResult[Any, Any]:
        """Return the result as it is now.

        Raises:
            TaskResultDoesNotExist: there is none with this id.
            TaskResultMismatch: the task that it is of is none any more.
        """
        row = rows.read(str(result_id))
        if row is None:
            raise TaskResultDoesNotExist(f"There is no result with the id {result_id!r}.")
        return rows.result_of(row)

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """taskkit.E033: a queue in ``QUEUES`` that Celery does not have, and may not make."""
        if not has_app():
            return []  # W005
        app = project_app()
        if app.conf.task_create_missing_queues:
            return []
        known = {getattr(queue, "name", queue) for queue in app.conf.task_queues or ()}
        return [
            checks.Error(
                f"TASKS[{self.alias!r}]['QUEUES'] has {queue!r}, which is none of Celery's queues: what is sent there "
                "can't be published.",
                hint="Name it in task_queues, or in a lane; or take it out.",
                id="taskkit.E033",
            )
            for queue in sorted(self.queues - {DEFAULT_TASK_QUEUE_NAME} - known)
        ]

    def _send(self, app: Celery, result: TaskResult[Any, Any]) -> None:
        task = result.task
        sender = celery_task(app, task)
        options: dict[str, Any] = {"headers": {DJANGO_TASK_HEADER: self.alias}}
        if task.queue_name != DEFAULT_TASK_QUEUE_NAME:
            options["queue"] = task.queue_name
        number = number_for(app, sender, task.priority, options.get("queue"))
        if number is not None:
            options["priority"] = number
        if task.run_after is not None:
            after = task.run_after if timezone.is_aware(task.run_after) else timezone.make_aware(task.run_after)
            if after > datetime.now(utc_zone.utc):
                options["eta"] = after.astimezone(utc_zone.utc)
        if self.outbox is not None and not app.conf.task_always_eager:
            options["outbox"] = self.outbox
        sender.apply_async(args=result.args, kwargs=result.kwargs, task_id=result.id, **options)

    def _tell_and_send(self, app: Celery, result: TaskResult[Any, Any]) -> None:
        announcements.enqueued(result)  # before it is sent: a worker may be quicker than the next line
        try:
            self._send(app, result)
        except Exception as exc:
            announcements.failed(result.id, 0, error_of(exc))
            raise


def _is_in_transaction(using: str) -> bool:
    """Say whether a transaction is open, beside that of a test case: it is never committed, and not there for users."""
    blocks = connections[using].atomic_blocks
    return any(not getattr(block, "_from_testcase", False) for block in blocks)


def _chosen(alias: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return ``OPTIONS`` with the defaults.

    Raises:
        InvalidTaskBackend: there is a key or a value that makes no sense.
    """
    for name, value in options.items():
        where = f"TASKS[{alias!r}]['OPTIONS'][{name!r}]"
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, n=1)
            guess = f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(map(repr, OPTIONS))}."
            raise InvalidTaskBackend(f"{where} is not an option of CeleryBackend; {guess}")
        allowed = OPTIONS[name][1]
        if not any(value is choice or (isinstance(value, str) and value == choice) for choice in allowed):
            raise InvalidTaskBackend(f"{where} is {value!r}; give {' or '.join(map(repr, allowed))}.")
    return {name: options.get(name, default) for name, (default, _allowed) in OPTIONS.items()}
