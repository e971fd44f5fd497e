"""What runs, by the settings as they are now, and the watch for changes of files. `run.py` uses both.

As a program it prints the plan of the workers, if the project loads: `run.py` asks it before it stops anything.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from config.environment import choose_settings

HERE = Path(__file__).resolve().parent

#: Seconds after a change in which a process that ends is not the end of all.
CHANGE_SETTLES = 60

#: Of each worker its name, what Python is given, and seconds for a warm stop.
Plan = list[tuple[str, list[str], int]]


class BrokenError(Exception):
    """The project does not load; holds what was said."""


def workers() -> list[Any]:
    """Return a process for each lane of the settings; `manage.py taskkit worker` starts the same command lines."""
    choose_settings()
    import django

    django.setup()
    from django_taskkit.routing.processes import worker_process
    from django_taskkit.routing.workers import worker_plans

    from config.celery import app

    app.loader.import_default_modules()  # tasks with a time limit of their own make a stop longer
    return [worker_process(plan, "config") for plan in worker_plans(app)]


def print_plan() -> None:
    """Print the workers as JSON, if Django's checks find no error."""
    planned = [[process.name, process.arguments, process.stop_grace] for process in workers()]
    from django.core.management import call_command

    call_command("check", stdout=sys.stderr)
    print(json.dumps(planned))


def ask() -> Plan:
    """Ask for the workers in a process of its own, which reads the files as they are now.

    Raises:
        BrokenError: the project does not load.
    """
    # In a session of its own: a Ctrl-C in the terminal is for `run.py`.
    done = subprocess.run(
        [sys.executable, "reload.py"], cwd=HERE, capture_output=True, text=True, check=False, start_new_session=True
    )
    if done.returncode:
        raise BrokenError(done.stderr.strip())
    return [(name, arguments, grace) for name, arguments, grace in json.loads(done.stdout.splitlines()[-1])]


class Watcher(threading.Thread):
    """Sees files change, and puts what is to run from now on into `plans`."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        super().__init__(daemon=True)
        self.say = say
        self.plans: queue.SimpleQueue[Plan] = queue.SimpleQueue()
        #: When a file has changed; 0: none has.
        self.changed_at = 0.0

    def changed_lately(self) -> bool:
        """Say whether what ends now may have met half of a change."""
        return bool(self.changed_at) and time.monotonic() - self.changed_at < CHANGE_SETTLES

    @staticmethod
    def folders() -> list[Path]:
        """Return the packages beside this file: not var or .venv, and not tests, of which nothing here runs."""
        return sorted(file.parent for file in HERE.glob("*/__init__.py") if file.parent.name != "tests")

    def run(self) -> None:
        try:
            from watchfiles import DefaultFilter, watch
        except ImportError:
            self.say("run", "files are not watched: watchfiles is not installed (requirements-dev.txt)")
            return

        class Loaded(DefaultFilter):
            def __call__(self, change: Any, path: str) -> bool:
                return path.endswith((".py", ".html", ".mo")) and super().__call__(change, path)

        try:
            while True:
                folders = self.folders()
                for changes in watch(*folders, watch_filter=Loaded(), raise_interrupt=False):
                    self._on_change(sorted({os.path.relpath(path, HERE) for _, path in changes}))
                    if self.folders() != folders:
                        break
        except OSError as exc:  # more files than the system lets one watch
            self.say("run", f"files are not watched: {exc}")

    def _on_change(self, names: list[str]) -> None:
        changed = names[0] + (f" and {len(names) - 1} more" if names[1:] else "")
        self.changed_at = time.monotonic()
        try:
            planned = ask()
        except BrokenError as exc:
            for line in str(exc).splitlines():
                self.say("run", line)
            self.say("run", f"{changed} changed, and the project does not load: all goes on as it was")
        else:
            self.say("run", f"{changed} changed: starting anew")
            self.plans.put(planned)


if __name__ == "__main__":
    print_plan()
