"""A database connection on which what is committed stays, and that is cut when the database says nothing for long.

Where a task died, its own connection may be of no use: it turned autocommit off or left a transaction open, and all
that is written there vanishes when Celery closes the connection after the task. And a database that accepts a
connection and then falls silent would hold the worker for ever.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from kombu.utils.compat import detect_environment

from django_taskkit.dlq.forks import fork_guard

CONNECT_TIMEOUT = 10
"""Seconds to wait for a new connection, unless the project's ``OPTIONS`` say otherwise."""

_PATIENCE = {
    "postgresql": {"connect_timeout": CONNECT_TIMEOUT},
    # Without a read timeout PyMySQL waits for the greeting of a silent server for ever.
    "mysql": {"connect_timeout": CONNECT_TIMEOUT, "read_timeout": CONNECT_TIMEOUT},
    # The task's own transaction may hold the lock, and then waiting is of no use.
    "sqlite": {"timeout": 2},
}
"""Options of a connection of our own, by vendor. Drivers of other databases bound it as the project says."""


LOOK_AGAIN = 0.05
"""Seconds between two looks at SQLite's lock where greenlets share the process."""


class NoConnectionError(Exception):
    """The database can't be reached at all, or SQLite's file is locked for longer than the project waits."""


@contextmanager
def durable(using: str, seconds: float) -> Iterator[None]:
    """Within the block ``connections[using]`` keeps what is committed; it is cut after ``seconds``.

    That is the thread's own connection if it is open and commits, so that a death costs no connection, and one made for
    the block if not. A test's transaction is taken as it is.

    Raises:
        NoConnectionError: no connection within :data:`CONNECT_TIMEOUT`, or no turn to write within SQLite's timeout.
    """
    local = connections[using].vendor == "sqlite"
    with fork_guard.writing() if local else nullcontext(), _connected(using, seconds, local=local):
        yield


@contextmanager
def _connected(using: str, seconds: float, *, local: bool) -> Iterator[None]:
    before = connections[using]
    try:
        if local and not before.in_atomic_block:
            before.ensure_connection()  # a file: nothing to wait for
        own = None if _commits(before) else _copy(before)
        if own is not None:
            own.ensure_connection()
            own.set_autocommit(True)
        if local and detect_environment() != "default":
            _await_turn(own or before)
    except Exception as exc:
        raise NoConnectionError(f"{type(exc).__name__}: {exc}") from exc
    if own is not None:
        connections[using] = own
    try:
        with _cut_after(own or before, seconds, wanted=not local):
            yield
    finally:
        if own is not None:
            connections[using] = before
            with suppress(Exception):
                own.close()


def _await_turn(connection: Any) -> None:
    """Wait until SQLite would take a write, and let other greenlets run meanwhile.

    The driver's own wait stops the whole process, and with it the greenlet whose transaction is being waited for. Ours
    are no exception: the garbage collector may switch greenlets anywhere, when it ends a result of Celery's Redis
    backend, which then unsubscribes.
    """
    if connection.in_atomic_block:
        return
    seconds = (connection.settings_dict.get("OPTIONS") or {}).get("timeout", 5)  # which is sqlite3's default
    deadline = time.monotonic() + seconds
    driver = connection.connection
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                driver.execute("BEGIN IMMEDIATE")
            except connection.Database.OperationalError as exc:
                if "locked" not in str(exc):
                    return  # the write itself will say what is wrong
                if time.monotonic() >= deadline:
                    raise
                time.sleep(LOOK_AGAIN)
            else:
                driver.execute("ROLLBACK")
                return
    finally:
        driver.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")


@contextmanager
def kept_open(using: str) -> Iterator[None]:
    """Open the thread's own connection for several writes in a row, if it is not open, and close it then.

    For where a connection was had a moment ago; :func:`durable` makes one for each write otherwise.
    """
    connection = connections[using]
    opened = connection.connection is None and not is_pooled(connection)
    if opened:
        with suppress(Exception):  # the writes will say what is wrong
            connection.ensure_connection()
    try:
        yield
    finally:
        if opened and not connection.in_atomic_block:
            with suppress(Exception):
                connection.close()


def forget_connection(using: str) -> None:
    """Close the thread's connection, which an error may have broken, unless a transaction of the caller's is open."""
    connection = connections[using]
    if connection.in_atomic_block:
        return
    if connection.vendor == "sqlite" and connection.connection is not None:
        # Python 3.11 keeps a closed connection, with its lock, for as long as a cursor of it is alive.
        with suppress(Exception):
            connection.connection.rollback()
    with suppress(Exception):  # PyMySQL complains of a connection that is closed already; Django forgets it anyway
        connection.close()


def is_pooled(connection: BaseDatabaseWrapper) -> bool:
    """Say whether Django keeps a pool of connections, which no process may open that will fork."""
    return bool((connection.settings_dict.get("OPTIONS") or {}).get("pool"))


def _commits(connection: BaseDatabaseWrapper) -> bool:
    if connection.connection is None:
        return False
    if connection.in_atomic_block:
        return bool(getattr(connection.atomic_blocks[-1], "_from_testcase", False))
    return bool(connection.autocommit)


def _copy(connection: BaseDatabaseWrapper) -> BaseDatabaseWrapper:
    own: Any = connection.copy()
    patience = _PATIENCE.get(connection.vendor, {})
    own.settings_dict["OPTIONS"] = {**patience, **(own.settings_dict.get("OPTIONS") or {})}
    if connection.vendor == "sqlite":
        own.settings_dict["OPTIONS"].update(patience)
    # A pool that a worker opens is inherited by the processes that it forks, and the first of them to close it closes
    # the connections of all.
    own.settings_dict["OPTIONS"].pop("pool", None)
    return own  # type: ignore[no-any-return]


@contextmanager
def _cut_after(connection: BaseDatabaseWrapper, seconds: float, wanted: bool) -> Iterator[None]:
    """Shut the socket of ``connection`` down after ``seconds``; whoever reads from it then gets an error.

    A driver's own limits don't reach this far: PostgreSQL's bound only what the server itself still counts.
    """
    if not wanted:
        yield
        return
    over = threading.Lock()  # held from the end of the block on, so that nobody else's query is cut

    def cut() -> None:
        if over.acquire(blocking=False):
            with suppress(Exception):
                _shut_down(connection.connection)
            over.release()

    watch = threading.Timer(seconds, cut)
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
        over.acquire()


def _shut_down(driver_connection: Any) -> None:
    fileno = getattr(driver_connection, "fileno", None) or driver_connection._sock.fileno
    with socket.socket(fileno=os.dup(fileno())) as twin:
        twin.shutdown(socket.SHUT_RDWR)
