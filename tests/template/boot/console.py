"""Python inside the project: asks its database and its tasks, without starting Django for each question."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

INSIDE = Path(__file__).with_name("inside.py")


class Console:
    def __init__(self, folder: Path, environment: Mapping[str, str], log: Path) -> None:
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(INSIDE)],
                cwd=folder,
                env={**environment, "PYTHONPATH": f"{folder}:{environment['PYTHONPATH']}"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )

    def ask(self, question: str, **names: Any) -> Any:
        """The value of an expression, in which the functions of inside.py and ``names`` are known."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([question, names]), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        assert line, "the console has ended"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
