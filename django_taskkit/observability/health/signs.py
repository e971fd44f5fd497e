"""Write the sign of life of this process, at most every few seconds."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.conf import settings

from django_taskkit import conf
from django_taskkit.observability.health import files
from django_taskkit.process_identity import are_apart, is_gone, of_this_process

logger = logging.getLogger("django_taskkit")

EVERY = 5.0
"""Seconds between two signs."""


def folder() -> str:
    """Return the folder that the settings name."""
    module: str | None = getattr(settings, "SETTINGS_MODULE", None)
    loaded = sys.modules.get(module) if module else None
    return conf.current().health_dir or files.default_folder(module, getattr(loaded, "__file__", None))


class SignOfLife:
    """The sign of this process.

    Args:
        role: ``"worker"``, ``"beat"`` or ``"relay"``.
        name: what its owner calls it.
        wall: seconds since 1970.
    """

    def __init__(self, role: str, name: str, wall: Callable[[], float] = time.time) -> None:
        self._role = role
        self._name = name
        self._wall = wall
        self._path: str | None = None
        self._pid = os.getpid()
        self._started_at = wall()
        self._written_at = float("-inf")
        self._complained = self._ended = False
        self._turn = threading.Lock()

    def is_due(self) -> bool:
        """Say whether it is time for another sign."""
        return not 0 <= self._wall() - self._written_at < EVERY

    def write(self, facts: dict[str, Any]) -> None:
        """Write it; that it can't be written is said once."""
        # A signal's handler may want to write while the code that it interrupted does, and so may another thread.
        if self._ended or not self._turn.acquire(blocking=False):
            return
        try:
            self._write(facts)
        finally:
            self._turn.release()

    def _write(self, facts: dict[str, Any]) -> None:
        now = self._wall()
        self._written_at = now
        sign = {
            **facts,
            "role": self._role,
            "name": self._name,
            "host": socket.gethostname(),
            "pid": self._pid,
            "process": of_this_process(),
            "started_at": self._started_at,
            "at": now,
        }
        try:
            if self._path is None:
                self._path = self._begin()
            files.write(self._path, sign)
        except Exception as exc:
            if not self._complained:
                self._complained = True
                logger.error("the sign of life of this %s can't be written: %s", self._role, exc)

    def remove(self) -> None:
        """Take it away, for this process ends in good order; not in a child that it forked."""
        self._ended = True
        if self._path is not None and self._pid == os.getpid():
            files.remove(self._path)

    def _begin(self) -> str:
        where = folder()
        files.make_folder(where)
        for sign in files.read(where, self._role):
            with suppress(Exception):
                process, is_here = str(sign.get("process", "")), sign.get("host") == socket.gethostname()
                # One of a container with this host's name may be at work all the same; then it writes again.
                is_before = is_here and are_apart(process, of_this_process())
                if sign.get("name") == self._name and (is_before or is_gone(process)):
                    files.remove(sign["path"])
        return files.path_of(where, self._role, self._name, self._pid)
