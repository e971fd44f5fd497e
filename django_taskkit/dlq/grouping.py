"""Which failures are the same failure."""

from __future__ import annotations

import hashlib
from types import TracebackType


def fingerprint(task_name: str, exception_class: str, tb: TracebackType | None) -> str:
    """Return a digest of the task, the exception's class and the place in the code that raised it.

    The place is file and function, without the line, so that an edit elsewhere in the file does not
    split a group. The message is left out: it mostly carries the one value that differs.
    """
    place = ""
    if tb is not None:
        while tb.tb_next is not None:
            tb = tb.tb_next
        place = f"{tb.tb_frame.f_code.co_filename}:{tb.tb_frame.f_code.co_name}"
    return fingerprint_at(task_name, exception_class, place)


def fingerprint_at(task_name: str, exception_class: str, place: str) -> str:
    """Return the digest where only the place is known, as ``"file:function"``; empty if that isn't either."""
    same = f"{task_name}\n{exception_class}\n{place}".encode("utf-8", "backslashreplace")
    return hashlib.sha1(same, usedforsecurity=False).hexdigest()
