"""Messages that a process of the prefork pool runs."""

from __future__ import annotations

import struct
from typing import Any

from django_taskkit.worker.requests import GuardedRequest


class PooledRequest(GuardedRequest):
    """A message that is run in a process of the pool."""

    def cancel(self, pool: Any, *args: Any, **kwargs: Any) -> None:
        # A soft shutdown reads no outcomes while it waits. Celery would cancel what has ended meanwhile, and store
        # RETRY over its SUCCESS; the pool reads the outcome when it is stopped, right after this.
        if not outcome_waits(pool, self.worker_pid):
            super().cancel(pool, *args, **kwargs)


def outcome_waits(pool: Any, pid: int | None) -> bool:
    """Say whether the pool's process ``pid`` has sent the outcome of what it ran, and the worker has not read it."""
    processes = getattr(getattr(pool, "_pool", None), "_pool", None) or ()
    for process in processes:
        # A pool without an event loop has no such pipe: a thread reads its outcomes, also during a shutdown.
        descriptor = getattr(process, "outqR_fd", None)
        if process.pid == pid and descriptor is not None:
            return _unread(descriptor) > 0
    return False


def _unread(descriptor: int) -> int:
    """How many bytes wait in a pipe; one that is closed has none, although it would be ready to be read."""
    from fcntl import ioctl  # not on Windows, where there is no prefork pool
    from termios import FIONREAD

    (count,) = struct.unpack("i", ioctl(descriptor, FIONREAD, struct.pack("i", 0)))
    return int(count)
