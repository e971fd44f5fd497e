"""Many threads of one of several processes that ask for the same value at the same moment; see test_result_cache.py.

Called with the number of threads. Reads two lines for each round, what to ask for and that it begins; answers with
one, what the threads were told.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import ExitStack
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "result_cache_settings")

import django

django.setup()

import result_cache_app as tasks  # noqa: E402
from celery.contrib.testing.worker import start_worker  # noqa: E402

from django_taskkit.results import ResultCache  # noqa: E402


class Crowd:
    """Threads that stay, as those of a web server do, and ask all at once."""

    def __init__(self, size: int) -> None:
        self.gate = threading.Barrier(size + 1)
        self.cached: ResultCache | None = None
        self.question: dict[str, Any] = {}
        for _ in range(size):
            threading.Thread(target=self._stay, daemon=True).start()

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self.question = question
        self.cached = ResultCache(tasks.quick, timeout=300, stale_for=600, cache=question["alias"])
        self.errors: list[str] = []
        self.statuses: list[str] = []
        self.values: list[str] = []
        self.dispatched: list[bool] = []
        print("ready", flush=True)
        sys.stdin.readline()  # all processes begin at once
        self.gate.wait(60)
        self.gate.wait(60)
        return {
            "errors": self.errors,
            "statuses": sorted(set(self.statuses)),
            "values": self.values,
            "dispatched": sum(self.dispatched),
        }

    def _stay(self) -> None:
        while True:
            self.gate.wait()
            try:
                self._ask_until_it_is_there()
            except BaseException as exc:
                self.errors.append(repr(exc))
            self.gate.wait()

    def _ask_until_it_is_there(self) -> None:
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            state = self.cached.get_or_dispatch(self.question["folder"])
            self.dispatched.append(state.dispatched)
            self.statuses.append(f"{state.status}/{state.run}" if state.run else str(state.status))
            if state.status == "hit" and state.value_id != self.question["unlike"]:
                self.values.append(json.dumps(state.value))
                return
            time.sleep(0.05)
        self.errors.append(f"nothing came; at last it was {state}")


tasks.app.set_default()  # that of the settings of the tests was first
with ExitStack() as stack:
    if "--with-worker" in sys.argv:  # the memory of a process can be shared with nobody else
        stack.enter_context(
            start_worker(tasks.app, pool="threads", concurrency=2, perform_ping_check=False, shutdown_timeout=30)
        )
    crowd = Crowd(int(sys.argv[1]))
    print("started", flush=True)
    for line in sys.stdin:
        print(json.dumps(crowd.ask(json.loads(line))), flush=True)
