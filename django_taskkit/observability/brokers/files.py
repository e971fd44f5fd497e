"""Queues of the filesystem transports: a file for each message."""

from __future__ import annotations

import heapq
from contextlib import suppress
from typing import Any

from celery import Celery

from django_taskkit.observability.brokers.ages import Unknown, age_of, oldest_of
from django_taskkit.observability.queues import QueueState

LOOK_FURTHER = 20
"""Files that are read of one priority before the age is not known."""


def look(app: Celery, connection: Any, names: list[str]) -> list[QueueState]:
    """List each queue's folder and read the first files of each priority; kombu's own transport tells no ages."""
    channel = connection.channel()
    return [_ours(app, channel, name) if hasattr(channel, "ready") else _kombus(channel, name) for name in names]


def _ours(app: Celery, channel: Any, name: str) -> QueueState:
    from django_taskkit.transports.folders import encode, names_in

    place = channel.ready / encode(name)
    files = names_in(place)
    # A name begins with the priority, one digit, and goes on with the time.
    first: list[str] = []
    for digit in sorted({file[:1] for file in files}):
        first += heapq.nsmallest(LOOK_FURTHER, (file for file in files if file[:1] == digit))
    return QueueState(
        name=name,
        depth=len(files),
        oldest=oldest_of(_ages(app, place, first)),
        consumers=None,
        kind="files",
    )


def _ages(app: Celery, place: Any, files: list[str]) -> list[float | Unknown]:
    """Read the first file of each priority that is due; the others behind it are younger."""
    ages: list[float | Unknown] = []
    done: set[str] = set()
    for file in files:
        if file[:1] in done:
            continue
        with suppress(OSError):  # a worker has taken it
            age = age_of(app, (place / file).read_bytes())
            ages.append(age)
            if age is not Unknown.NOT_DUE:
                done.add(file[:1])
    return ages


def _kombus(channel: Any, name: str) -> QueueState:
    return QueueState(
        name=name, depth=int(channel._size(name)), oldest=None, consumers=None, kind="files", note="ages are not told"
    )
