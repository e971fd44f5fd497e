"""Which process holds the messages that were taken, and which of them are dead.

Each process has one locked in-flight folder below a broker's folder. The kernel frees the lock when the process
ends, however it ends; what is left in the folder then belongs to whoever looks next.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

#: This process's in-flight folder below each broker folder, and the descriptor that holds its lock.
owned: dict[Path, tuple[Path, int]] = {}
_owning = threading.Lock()


def _disown() -> None:
    """Make a forked child give up its parent's folders.

    An flock belongs to the open file, which a fork shares: were its copy left open, a pool child that
    outlives its killed parent would keep the parent's messages locked until its task ends. Closing the copy
    leaves the parent's lock alone. (POSIX record locks are not inherited, but any close of the same file
    drops them, and they do not tell two owners in one process apart.) Python closes descriptors on exec.
    """
    for _, descriptor in owned.values():
        os.close(descriptor)
    owned.clear()
    _owning.release()


# Held across a fork, so that no child gets a descriptor that is open but not yet in the dictionary.
os.register_at_fork(before=_owning.acquire, after_in_parent=_owning.release, after_in_child=_disown)


def own_folder(root: Path) -> Path:
    """This process's locked in-flight folder below `root`; made at first use, and anew if it was removed."""
    with _owning:
        folder, descriptor = owned.get(root, (None, -1))
        if folder is None or not folder.is_dir():
            if folder is not None:
                os.close(descriptor)
            # Locked before it has the name that sweepers look for: it never looks abandoned.
            new = root / "tmp" / f"{os.getpid()}-{uuid.uuid4().hex}"
            new.mkdir(mode=0o700)
            descriptor = os.open(new, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            folder = new.rename(root / "inflight" / new.name)
            owned[root] = folder, descriptor
        return folder


def inherit(folder: Path, give_back: Callable[[Path], None]) -> None:
    """Give back what a dead process had taken; leave a living one alone."""
    with suppress(FileNotFoundError, BlockingIOError):  # another sweeper was faster, its owner lives
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for place in folder.iterdir():
                for path in place.iterdir():
                    logger.warning("Giving back a message of a dead consumer: %s", path)
                    give_back(path)
                place.rmdir()
            folder.rmdir()
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a close would not do if a thread forks just now
            os.close(descriptor)
