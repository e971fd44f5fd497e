"""Deaths as files, for when neither the database nor the broker takes them.

One file for each, written to the disk before it gets its name, so that a crash leaves a whole file or none. A file is
locked while it is read into the table; the kernel frees the lock of a process that ends, and the next one takes it.

A file that can't be read or that the database refuses goes to the folder ``refused`` next to the others.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings as django_settings
from django.db import connections, router

from django_taskkit import conf
from django_taskkit.dlq.models import DeadLetter
from django_taskkit.exceptions import TaskkitError
from django_taskkit.transports.folders import delete_older, names_in, sync_folder

logger = logging.getLogger("django_taskkit")

SUFFIX = ".json"

_ABANDONED = 24 * 3600.0
"""Seconds after which a file that never got its name belongs to a process that is gone; its message was not
acknowledged, so the broker still has it."""


class UnsafeFolderError(TaskkitError):
    """Somebody else could read or change what is in the spool's folder."""


def path() -> Path:
    """Return the folder of this project's spool; it need not exist."""
    if given := conf.current().spool_dir:
        return Path(given)
    # Neither the code's place, which is another one after each deployment, nor the database's host, which may be
    # another one after an outage.
    package = str(getattr(django_settings, "SETTINGS_MODULE", "")).partition(".")[0]
    name = connections[router.db_for_write(DeadLetter)].settings_dict["NAME"]
    digest = hashlib.sha256(f"{package}\n{name}".encode()).hexdigest()[:12]
    return Path("/var/tmp", f"django-taskkit-{os.geteuid()}-{digest}")  # noqa: S108


def opened() -> Path:
    """Return the folder, made if need be.

    Raises:
        UnsafeFolderError: it is somebody else's.
    """
    folder = path()
    by_default = not conf.current().spool_dir
    folder.mkdir(mode=0o700, parents=not by_default, exist_ok=True)
    _refuse_unsafe(folder, by_default=by_default)
    for name in ("tmp", "refused"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    return folder


def problem() -> str:
    """Say why no file could be written, without making anything; empty if nothing speaks against it."""
    folder = path()
    try:
        if folder.exists():
            _refuse_unsafe(folder, by_default=not conf.current().spool_dir)
        parent = next(place for place in (folder, *folder.parents) if place.exists())
    except (OSError, UnsafeFolderError) as exc:
        return str(exc)
    if not parent.is_dir():
        return f"the spool's folder {str(folder)!r} can't be made, since {str(parent)!r} is no folder"
    if not os.access(parent, os.W_OK | os.X_OK):
        return f"this user may not write to {str(parent)!r}, where the spool's folder is {str(folder)!r}"
    return ""


def _refuse_unsafe(folder: Path, *, by_default: bool) -> None:
    """The default is in a folder where anybody can make one of that name first, or a link to somewhere else."""
    found = os.lstat(folder) if by_default else os.stat(folder)
    allowed = {os.geteuid()} if by_default else {os.geteuid(), 0}
    others = 0o077 if by_default else 0o002
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in allowed or found.st_mode & others:
        raise UnsafeFolderError(
            f"the spool's folder {str(folder)!r} is no folder, or not this user's alone; "
            "remove it, or name another one in TASKKIT['SPOOL_DIR']"
        )


def names() -> list[str]:
    """Return the names of the files that wait, oldest first."""
    return sorted(name for name in names_in(path()) if name.endswith(SUFFIX))


def write(text: str, *, refused: bool = False) -> Path:
    """Keep ``text`` in a file of its own, and return when the disk has it."""
    folder = opened()
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex}{SUFFIX}"
    temporary = folder / "tmp" / name
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        target = temporary.rename((folder / "refused" if refused else folder) / name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)
    return target


def refuse(file: Path, why: object) -> None:
    """Put ``file`` out of the way of the others, and say so."""
    target = file.rename(opened() / "refused" / file.name)
    sync_folder(target.parent)
    log_refused(target, why)


def log_refused(file: Path, why: object) -> None:
    logger.critical(
        "a dead letter does not get into the table, and is kept in %s: %s. "
        "Move the file to the folder above when the cause is gone.",
        file,
        why,
    )


def tidy() -> None:
    """Delete what processes left that ended while they wrote."""
    delete_older(path() / "tmp", _ABANDONED)


@contextmanager
def claimed(name: str) -> Iterator[Path | None]:
    """Hold the file ``name`` within the block; None if another process has it or was done with it."""
    file = opened() / name
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have been done with it between the two calls.
            free = os.fstat(descriptor).st_nlink > 0 and file.exists()
        except BlockingIOError:
            free = False
        yield file if free else None
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a close would not do if a pool process is forked just now
        os.close(descriptor)
