"""Where every item is at the end, and the story of those that are nowhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

from account.faults import Faults
from account.stage import Stage

FAILED = ("FAILURE", "REVOKED", "REJECTED")
"""States in a result backend that say that a task is over; all that plain Celery leaves of it."""

BEHIND = "behind a dead letter"

MOST_LINES = 12


@dataclass
class Item:
    """One thing that has to be somewhere."""

    name: str
    fate: str
    sent_at: float
    starts: int = 0
    successes: int = 0
    accepted: bool = False
    """Whether its sender was told that it is sent."""
    end: str = "missing"
    """``succeeded``, ``dead``, ``waiting``, ``state only``, ``lost by the broker`` or ``missing``."""
    detail: str = ""


class Sent:
    """What the ledger knows: every item of the messages that were accepted, and how often each ran."""

    def __init__(self) -> None:
        self._all: dict[str, Item] = {}
        self._parts: dict[str, list[str]] = {}
        self.refusals: Counter[str] = Counter()

    def take(self, lines: Iterable[dict[str, Any]]) -> None:
        for line in lines:
            match line["event"]:
                case "sending":
                    self._parts[line["item"]] = line["items"]
                    self._all.update({name: Item(name, line["fate"], line["at"]) for name in line["items"]})
                case "accepted":
                    for name in self._parts[line["item"]]:
                        self._all[name].accepted = True
                case "refused":
                    self.refusals[line["error"].partition(":")[0]] += 1
                case "started":
                    self._all[line["item"]].starts += 1
                case "done":
                    self._all[line["item"]].successes += 1

    @property
    def items(self) -> dict[str, Item]:
        """What counts: where the sender was told that it can't be sent, it knows."""
        return {name: item for name, item in self._all.items() if item.accepted}


def settle(
    stage: Stage,
    sent: Sent,
    waiting: dict[str, Counter[str]] | None = None,
    held: Container[str] = (),
) -> list[Item]:
    """Find every item; return those that are missing.

    ``waiting`` is what is still at the broker, by queue; ``held`` what a broker without persistence took along.
    """
    items = sent.items
    own: dict[str, str] = {}
    behind: set[str] = set()
    for task_id, reason, names in stage.letters():
        name = task_id if task_id in items else next(iter(names), "")
        own[name] = reason
        behind.update(other for other in names if other != name)
    places = {f"queue {queue}": names for queue, names in (waiting or {}).items()}
    places |= {"outbox": stage.outbox(), "spool": stage.spooled()}
    states = {} if stage.project.ours else stage.states()
    for item in items.values():
        where = next((place for place, names in places.items() if item.name in names), None)
        if item.successes:
            item.end, item.detail = "succeeded", own.get(item.name, "")
        elif item.name in own:
            item.end, item.detail = "dead", own[item.name]
        elif where is not None:
            item.end, item.detail = "waiting", where
        elif item.name in behind:
            item.end, item.detail = "waiting", BEHIND
        elif states.get(item.name) in FAILED:
            item.end, item.detail = "state only", states[item.name]
        elif item.name in held:
            item.end, item.detail = "lost by the broker", ""
        else:
            item.end, item.detail = "missing", states.get(item.name, "")
    return [item for item in items.values() if item.end == "missing"]


def story(item: Item, stage: Stage, faults: Faults) -> str:
    """Everything that is known about an item that is nowhere."""
    lines = [f"{item.name}: {item.fate}; {item.starts} starts; state {item.detail or 'none'}"]
    events = [line for line in stage.ledger().new_lines() if line["item"] == item.name]
    for event in events:
        at = f"+{event['at'] - item.sent_at:.1f} s"
        lines.append(f"    {at} {event['event']} in process {event['pid']}, retries {event.get('retries', '-')}")
    moments = [("sent", item.sent_at)] + ([("last seen", events[-1]["at"])] if events else [])
    for what, moment in moments:
        near = faults.near(moment)
        lines.append(f"    faults when {what}: {'; '.join(near) if near else 'none'}")
    for path in sorted(stage.folder.glob("*.log")):
        with open(path, errors="replace") as log:
            found = [line.rstrip()[:300] for line in log if item.name in line]
        lines += [f"    {path.name}: {line}" for line in found[-MOST_LINES:]]
    return "\n".join(lines)
