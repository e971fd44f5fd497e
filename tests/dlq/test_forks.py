"""A process that is forked while another thread writes to SQLite can write itself."""

import os
import sqlite3
import threading

import pytest

from django_taskkit.dlq import forks
from django_taskkit.dlq.forks import fork_guard


@pytest.fixture
def file(tmp_path):
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    return tmp_path / "db"


class Writer(threading.Thread):
    """Holds SQLite's lock until it hears that somebody forks."""

    def __init__(self, file, guarded):
        super().__init__()
        self.file, self.guarded, self.has_lock, self.may_end = file, guarded, threading.Event(), threading.Event()

    def run(self):
        if self.guarded:
            with fork_guard.writing():
                self.write()
        else:
            self.write()

    def write(self):
        connection = sqlite3.connect(self.file, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO t VALUES (1)")
        self.has_lock.set()
        self.may_end.wait(60)
        connection.execute("COMMIT")
        connection.close()


def fork_and_write(file, writer):
    """Return whether a child that was forked while ``writer`` writes can write, once the writer is done."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.read(told, 1)  # the writer of the parent has ended
            connection = sqlite3.connect(file, timeout=0.2, isolation_level=None)
            connection.execute("BEGIN IMMEDIATE")
            os._exit(0)
        except BaseException:
            os._exit(1)
    writer.may_end.set()
    writer.join()
    os.write(tell, b"x")
    _, status = os.waitpid(child, 0)
    os.close(told)
    os.close(tell)
    return status == 0


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_waits_for_the_writes_under_way(file, guarded, monkeypatch):
    """Without the guard it does not: should that fail, SQLite has mended it."""
    writer = Writer(file, guarded)
    writer.start()
    writer.has_lock.wait()
    if guarded:  # the writer goes on only when the fork waits for it
        wait = forks._wait

        def let_it_end(condition):
            writer.may_end.set()
            wait(condition)

        monkeypatch.setattr(forks, "_wait", let_it_end)

    assert fork_and_write(file, writer) is guarded


def test_a_write_waits_for_the_fork_under_way(monkeypatch):
    guard = forks.ForkGuard()
    guard._before()
    order = []

    def fork_ends(condition):
        assert not condition()
        order.append("fork")
        guard._after()
        assert condition()

    monkeypatch.setattr(forks, "_wait", fork_ends)
    with guard.writing():
        order.append("write")

    assert order == ["fork", "write"]


def test_a_fork_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(forks, "PATIENCE", 0)
    guard = forks.ForkGuard()

    with guard.writing():
        guard._before()
        guard._begin_anew()

    with guard.writing():
        pass
