"""Does somebody read every queue?"""

from __future__ import annotations

from collections.abc import Iterator

from django_taskkit.doctor.finding import Finding, error, ok, unknown, warning
from django_taskkit.doctor.site import Site
from django_taskkit.observability.queues import QueueState
from django_taskkit.observability.workers import can_ask

QUEUES = "queues"
UNREAD = "queue-unread"


def queues(site: Site) -> Iterator[Finding]:
    """``queues``: how much waits; ``queue-unread``: nobody reads one."""
    states = site.queues()
    read = _read(site, states)
    yield ok(QUEUES, f"{_counted(states)}.")
    found = False
    for state in states:
        if state.name in read:
            continue
        if state.consumers is None and not can_ask(site.app):
            yield unknown(UNREAD, f"Over this broker workers can't be asked whether they read {state.name!r}.")
        elif state.depth:
            yield error(
                UNREAD,
                f"{state.depth} messages wait in the queue {state.name!r}, and no worker reads it.",
                f"Start a worker with -Q {state.name}; `manage.py taskkit workers` prints its command line.",
            )
        elif state.depth is None and state.kind != "missing":
            yield unknown(UNREAD, f"The queue {state.name!r} could not be looked at: {state.note}")
        else:
            yield warning(
                UNREAD,
                f"No worker reads the queue {state.name!r}; what is sent there will wait.",
                f"Start a worker with -Q {state.name} (`manage.py taskkit workers` prints its command line), or take "
                "the queue out of task_queues.",
            )
        found = True
    if not found:
        yield ok(UNREAD, "A worker reads each of them.")


def _read(site: Site, states: list[QueueState]) -> set[str]:
    """Return the names of the queues that have a reader; RabbitMQ knows, elsewhere workers say."""
    if all(state.consumers is not None or state.kind == "missing" for state in states):
        return {state.name for state in states if state.consumers}
    by_workers = {name for worker in site.workers() for name in worker.queues}
    return by_workers | {state.name for state in states if state.consumers}


def _counted(states: list[QueueState]) -> str:
    """Say how many messages wait, of the fullest queues by name."""
    waiting = sorted((state for state in states if state.depth), key=lambda state: -(state.depth or 0))
    if not waiting:
        return f"No message waits in {len(states)} queue{'' if len(states) == 1 else 's'}"
    named = [
        f"{state.depth} in {state.name!r}" + (f", the oldest for {state.oldest:.0f} s" if state.oldest else "")
        for state in waiting[:5]
    ]
    rest = f"; and {len(waiting) - 5} more queues" if len(waiting) > 5 else ""
    return "Messages wait: " + "; ".join(named) + rest
