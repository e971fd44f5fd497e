"""Use the database from code that an event loop runs, where Django refuses it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from django.db import connections

T = TypeVar("T")


def outside_event_loop(action: Callable[[], T]) -> T:
    """Do ``action`` here, or in a thread of its own where an event loop runs: Django refuses its database there."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return action()
    if os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE"):
        return action()
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(action())
        except BaseException as exc:
            failure.append(exc)
        finally:
            with suppress(Exception):
                connections.close_all()

    thread = threading.Thread(target=run, name="django_taskkit.outbox")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
