"""Names and folders of a broker that is a folder."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

#: What reading something that is no message raises. Other OSErrors (a failing disk, no descriptors left) are
#: the process's trouble, not the message's, and are raised.
NO_MESSAGE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
NO_FILE = (PermissionError, IsADirectoryError)


def encode(name: str) -> str:
    """A queue's or exchange's file name: never a path, unique where capitals do not count, reversible."""
    return re.sub(rb"[^a-z0-9_.-]|^\.", lambda c: b"%%%02x" % ord(c[0]), name.encode()).decode() or "%"


def names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def delete_older(folder: Path, age: float) -> None:
    """Delete files and empty folders in `folder` that nobody has written to for `age` seconds."""
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > age:
                path.rmdir() if path.is_dir() else path.unlink()
