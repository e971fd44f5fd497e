"""Changes of a result: each is one conditional UPDATE, so that of two who report an end only the first is heard.

A message may be delivered twice, reported dead twice, requeued while its first run goes on. What decides is the
generation (how often it had been requeued) and whether the result is finished already.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from django.conf import settings
from django.db import IntegrityError, InterfaceError, OperationalError, connections, router, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from django_taskkit.backends.interface import Task, TaskError, TaskResult, TaskResultStatus
from django_taskkit.backends.model import FINISHED, DjangoTaskResult, TaskState
from django_taskkit.backends.registration import find, variant

T = TypeVar("T")


def database() -> str:
    """Return the alias of the database that has the results. They are read there too: a replica may be late."""
    return router.db_for_write(DjangoTaskResult)


def insert(result: TaskResult[Any, Any]) -> None:
    """Write the row of a result that is being enqueued, in the transaction that is open."""
    _objects().create(
        **_columns(result.id, result.task, result.backend, result.args, result.kwargs), **_enqueued(result)
    )


def read(task_id: str) -> DjangoTaskResult | None:
    if not task_id or "\x00" in task_id or len(task_id) > 64:  # PostgreSQL takes no NUL, not even to look for one
        return None
    return _objects().filter(pk=task_id).first()


def begin(task_id: str, generation: int, worker: str, message: Callable[[], dict[str, Any]]) -> DjangoTaskResult | None:
    """Note that a run begins; None if it is not to: the result is finished, or its message was requeued since, and
    this one was delivered once more.

    Args:
        message: returns the columns as the message has them. Its arguments may be others than those of the row, if the
            dead letter was edited; and there may be no row: its sender's transaction is still open, or it was sent by
            something else than ``enqueue()``.
    """
    return _again_if_stale(lambda: _begin(task_id, generation, worker, message()))


def _begin(task_id: str, generation: int, worker: str, message: dict[str, Any]) -> DjangoTaskResult | None:
    while True:
        row = _objects().filter(pk=task_id).first() or _create(task_id, message)
        if row is None:
            continue
        if row.status == TaskState.SUCCESSFUL or row.generation > generation:
            return None
        if row.status == TaskState.FAILED and row.generation == generation:
            return None
        now = timezone.now()
        changes = {
            "status": TaskState.RUNNING,
            "generation": generation,
            "attempts": row.attempts + 1,
            "started_at": row.started_at or now,
            "last_attempted_at": now,
            "finished_at": None,
            "worker_ids": [*row.worker_ids, worker],
            **{name: message[name] for name in ("args", "kwargs") if message[name] != getattr(row, name)},
        }
        # Where it has changed since it was read, look again.
        if (
            _objects()
            .filter(pk=task_id, status=row.status, attempts=row.attempts, generation=row.generation)
            .update(**changes)
        ):
            return _changed(row, changes)


def success(task_id: str, generation: int) -> DjangoTaskResult | None:
    """Return the row of a task that has succeeded already, for a message of it that is there once more.

    That of an older message counts as well: it was delivered twice, one run has failed, and its letter was requeued.
    """
    rows = _objects().filter(pk=task_id, status=TaskState.SUCCESSFUL, generation__lte=generation)
    return _again_if_stale(rows.first)


def succeed(row: DjangoTaskResult, generation: int, value: Any) -> DjangoTaskResult | None:
    """Note what the run that ``row`` has begun returned; None if the result was finished, or its message requeued,
    meanwhile."""
    final = {"status": TaskState.SUCCESSFUL, "return_value": value}
    return _again_if_stale(lambda: _finish(row, generation, final))


def fail(task_id: str, generation: int, error: TaskError) -> DjangoTaskResult | None:
    """Note that the task has failed for good; None if that is known, or its message was requeued meanwhile."""

    def note() -> DjangoTaskResult | None:
        with transaction.atomic(using=database()):
            row = _locked(task_id)
            return row and _finish(row, generation, {"status": TaskState.FAILED, "errors": _with(row.errors, error)})

    return _again_if_stale(note)


def run_again(row: DjangoTaskResult, error: TaskError | None) -> None:
    """Note that the run ``row`` has begun has failed, and the task will run again by itself.

    The next run may have begun, or ended, before: its message is sent already. Then only the error is noted.
    """
    began_with = len(row.errors)

    def note() -> None:
        with transaction.atomic(using=database()):
            now = _locked(row.pk)
            if now is None:
                return
            errors = now.errors if error is None else _with(now.errors, error, at=began_with)
            changes: dict[str, Any] = {"errors": errors}
            if (now.status, now.attempts, now.generation) == (TaskState.RUNNING, row.attempts, row.generation):
                changes["status"] = TaskState.READY
            _objects().filter(pk=row.pk).update(**changes)

    _again_if_stale(note)


def _finish(row: DjangoTaskResult, generation: int, changes: dict[str, Any]) -> DjangoTaskResult | None:
    final = {**changes, "generation": generation, "finished_at": timezone.now()}
    unfinished = _objects().filter(~Q(status__in=FINISHED), pk=row.pk, generation__lte=generation)
    return _changed(row, final) if unfinished.update(**final) else None


def _locked(task_id: str) -> DjangoTaskResult | None:
    """Return the row, which nobody else writes until the transaction ends: two errors at once are both kept.

    By a write, and not ``select_for_update()``, which SQLite lacks: a transaction that has read there may be refused
    the write.
    """
    mine = _objects().filter(pk=task_id)
    return mine.first() if mine.update(attempts=F("attempts")) else None


def result_of(row: DjangoTaskResult) -> TaskResult[Any, Any]:
    """Return the row as Django's result.

    Raises:
        TaskResultMismatch: the task that it is of is none any more.
    """
    task = variant(
        find(row.task_path),
        priority=row.priority,
        queue_name=row.queue_name,
        run_after=row.run_after,
        backend=row.backend,
    )
    result: TaskResult[Any, Any] = TaskResult(
        task=task,
        id=row.task_id,
        status=TaskResultStatus[row.status],
        enqueued_at=row.enqueued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        last_attempted_at=row.last_attempted_at,
        args=row.args,
        kwargs=row.kwargs,
        backend=row.backend,
        errors=[TaskError(**error) for error in row.errors],
        worker_ids=row.worker_ids,
    )
    object.__setattr__(result, "_return_value", row.return_value)
    return result


def columns_of(task: Task[Any, Any], alias: str, args: Any, kwargs: Any, enqueued_at: datetime) -> dict[str, Any]:
    """Return the columns of a message that was sent without a result."""
    return {**_columns("", task, alias, args, kwargs), "status": TaskState.READY, "enqueued_at": enqueued_at}


def _columns(task_id: str, task: Task[Any, Any], alias: str, args: Any, kwargs: Any) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "task_path": task.module_path,
        "backend": alias,
        "queue_name": task.queue_name,
        "priority": task.priority,
        "run_after": for_database(task.run_after),
        "args": args,
        "kwargs": kwargs,
    }


def _enqueued(result: TaskResult[Any, Any]) -> dict[str, Any]:
    return {"status": TaskState.READY, "enqueued_at": result.enqueued_at}


def for_database(moment: datetime | None) -> datetime | None:
    """Return ``moment`` as ``USE_TZ`` has it in the table."""
    if moment is None or settings.USE_TZ or timezone.is_naive(moment):
        return moment
    return timezone.make_naive(moment)


def _create(task_id: str, message: dict[str, Any]) -> DjangoTaskResult | None:
    try:
        with transaction.atomic(using=database()):
            return _objects().create(**{**message, "task_id": task_id})
    except IntegrityError:  # its sender has committed meanwhile
        return None


def _with(errors: list[dict[str, str]], error: TaskError, at: int | None = None) -> list[dict[str, str]]:
    added = {"exception_class_path": error.exception_class_path, "traceback": error.traceback}
    place = len(errors) if at is None else at
    return [*errors[:place], added, *errors[place:]]


def _changed(row: DjangoTaskResult, changes: dict[str, Any]) -> DjangoTaskResult:
    for name, value in changes.items():
        setattr(row, name, value)
    return row


def _objects() -> QuerySet[DjangoTaskResult]:
    return DjangoTaskResult.objects.using(database())


def _again_if_stale(action: Callable[[], T]) -> T:
    """Do it once more over a fresh connection: the one of before may have gone stale while a task ran for an hour."""
    try:
        return action()
    except (OperationalError, InterfaceError):
        connection = connections[database()]
        if connection.in_atomic_block:
            raise
        connection.close()
        return action()
