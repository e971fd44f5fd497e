"""What tasks and producer write down themselves: one line each, in a file that only grows."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE_VARIABLE = "TASKKIT_TEST_LEDGER"

TOKEN = re.compile(r"acc-\d{6}-[a-z]")
"""The name of one item; it is the task's id wherever there is one, and part of the body everywhere."""


def token(number: int, part: str = "a") -> str:
    return f"acc-{number:06d}-{part}"


def note(event: str, item: str, **facts: object) -> None:
    """Append one line in one write, so that a process may be killed at any time and several may write at once."""
    line = json.dumps({"event": event, "item": item, "at": time.time(), "pid": os.getpid(), **facts}) + "\n"
    file = os.open(os.environ[FILE_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


class Reader:
    """Reads a ledger that others still write: each line once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0

    def new_lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                yield json.loads(line)
