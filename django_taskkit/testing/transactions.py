"""Run a task within a test's transaction as if it had a connection of its own, as in a worker.

Django's ``TestCase`` and pytest-django's ``db`` keep one transaction open for the whole test. In a worker a task begins
outside of any: what it writes is committed at once, ``on_commit`` is called at once or when its own transaction ends,
and an error of the database spoils nothing but the statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from django.db import connections

IN_ERROR = 3
"""libpq's status of a transaction in which nothing but a rollback is possible."""


def is_in_own_transaction() -> bool:
    """Say whether the test's code, beside what the test case has opened, is in a transaction."""
    return any(
        connection.in_atomic_block and not getattr(connection.atomic_blocks[-1], "_from_testcase", False)
        for connection in connections.all(initialized_only=True)
    )


@contextmanager
def as_in_worker() -> Iterator[None]:
    """Within the block no transaction seems to be open; ``on_commit`` hooks are called at its end."""
    marked: list[Any] = []
    for connection in _in_transaction():
        block: Any = connection.atomic_blocks[-1]
        if not getattr(block, "_from_testcase", False):
            block._from_testcase = True  # which is what Django asks of durable blocks
            marked.append(block)
    hooks = _hooks()
    try:
        yield
        _commit(hooks)
    finally:
        for block in marked:
            block._from_testcase = False


def run_body(body: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call ``body``, then its ``on_commit`` hooks, and keep an error of the database from spoiling the transaction.

    PostgreSQL needs a savepoint for that: there, what the body wrote before such an error is gone as well.
    """
    hooks = _hooks()
    saved = [
        (connection, connection.savepoint() if connection.vendor == "postgresql" else None)
        for connection in _in_transaction()
        if not connection.needs_rollback and connection.connection is not None
    ]
    try:
        return body(*args, **kwargs)
    finally:
        for connection, savepoint in saved:
            _end(connection, savepoint)
        _commit(hooks)  # what they raise, the task has raised


def _in_transaction() -> list[Any]:
    return [connection for connection in connections.all(initialized_only=True) if connection.in_atomic_block]


def _end(connection: Any, savepoint: str | None) -> None:
    spoilt, connection.needs_rollback = connection.needs_rollback, False
    if savepoint is None:
        return
    # An error that Django was not asked about, of a cursor's say, is known to the driver alone.
    if spoilt or getattr(connection.connection.info, "transaction_status", None) == IN_ERROR:
        connection.savepoint_rollback(savepoint)
    connection.savepoint_commit(savepoint)


def _hooks() -> list[tuple[Any, int]]:
    """Return connections with how many ``on_commit`` hooks they have, which are none of the task's."""
    return [(connection, len(connection.run_on_commit)) for connection in _in_transaction()]


def _commit(before: list[tuple[Any, int]]) -> None:
    """Call the hooks that were registered since; those of a transaction that was rolled back are gone already."""
    for connection, count in before:
        while len(connection.run_on_commit) > count:  # a hook may register more
            _savepoints, hook, robust = connection.run_on_commit.pop(count)
            with suppress(Exception) if robust else nullcontext():
                hook()
