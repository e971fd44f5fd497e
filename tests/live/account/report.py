"""The figures of a run, to read."""

from __future__ import annotations

from account.run import Result


def text(result: Result) -> str:
    """The whole account of one run, with the story of everything that is missing."""
    dead, waiting = sum(result.dead.values()), sum(result.waiting.values())
    lines = [
        f"{result.project} on {result.broker}, {result.mix} mix, Celery {result.celery}, {result.seconds} s",
        f"  sent        {result.items:7}   {_refused(result)}",
        f"  succeeded   {result.succeeded:7}   {_twice(result)}",
        f"  dead        {dead:7}   {_listed(result.dead)}",
        f"  waiting     {waiting:7}   {_listed(result.waiting)}",
        f"  state only  {result.state_only:7}",
        f"  MISSING     {result.missing:7}   {_listed(result.missing_fates)}",
        f"  faults: {_listed(result.faults)}; worker starts: {result.worker_starts}"
        + ("; stopped before it was quiet" if result.capped else ""),
    ]
    if not result.durable:
        lines.append(
            f"  The broker forgot {result.lost_by_broker} that it held when it was killed:"
            " it is configured to keep nothing."
        )
    if not result.is_settled:
        lines.append(f"  logs: {result.folder}")
    lines += [f"  Queue {queue} can't be read: {why}" for queue, why in result.unreadable.items()]
    return "\n".join([*lines, *result.stories])


def _refused(result: Result) -> str:
    return f"(besides: the sender got an error for {_listed(result.refused)})" if result.refused else ""


def _twice(result: Result) -> str:
    again = f"ran again after success: {sum(result.duplicates.values())} ({_listed(result.duplicates)})"
    return f"{again}; also dead: {sum(result.also_dead.values())} ({_listed(result.also_dead)})"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def ends(result: Result) -> str:
    """Which fate ended how."""
    return "\n".join(f"  {fate:24} {_listed(found)}" for fate, found in sorted(result.ends.items()))
