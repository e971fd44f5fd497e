"""Who may run what an idempotency key stands for, and what is known of it: pure changes of one stored record.

There is no time in a record: it is there as long as it counts, by the store's own clock, so that the clocks of workers
may differ. Every claim bears the number of one run, and only that run renews it or gives it up: a holder whose lease
ran out can't overwrite what came after it.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kombu.utils import json as kombu_json

from django_taskkit.stores import Change

LARGEST_RESULT = 8192
"""Characters of a result, as JSON, that are kept for duplicates; a larger one is not kept."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The record of a key: who runs it, waits for its retry, or has done it."""

    holder: str
    """The id of the task; the same for its retries, however often its message is delivered or requeued."""
    generation: int = 0
    """How often the holder had been requeued."""
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    """The fence: one run of the holder."""
    renewals: int = 0
    done: bool = False
    result: str | None = None
    """What the body returned, as JSON; None: it was not kept."""

    def encode(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @property
    def answer(self) -> Any:
        """What the body returned; None if it was not kept."""
        return None if self.result is None else kombu_json.loads(self.result)


def decode(value: bytes | None) -> Claim | None:
    """Return the record; None if there is none, or something that isn't one."""
    if value is None:
        return None
    try:
        found = json.loads(value)
        return Claim(**{name: found[name] for name in _TYPES if isinstance(found[name], _TYPES[name])})
    except (ValueError, TypeError, KeyError):
        return None


_TYPES: dict[str, tuple[type, ...]] = {
    "holder": (str,),
    "generation": (int,),
    "run": (str,),
    "renewals": (int,),
    "done": (bool,),
    "result": (str, type(None)),
}


def kept(result: object) -> str | None:
    """Return ``result`` as JSON, as Celery would store it; None if it is too large, or nothing for JSON."""
    try:
        text: str = kombu_json.dumps(result)
        if '"__type__"' in text:  # a dict may look like one of kombu's marks and be none
            kombu_json.loads(text)
    except Exception:  # a value may bring its own way into JSON
        return None
    return text if len(text) <= LARGEST_RESULT else None


def take(mine: Claim, *, instead_of: Claim | None = None) -> Change[Claim | None]:
    """Claim the key unless someone else has it; the answer is who stands in the way, or None.

    The holder itself always passes, with one exception: its message is delivered again although this very one has been
    done, and its result is known.

    Args:
        instead_of: a claim whose holder is known to be dead.
    """

    def change(old: bytes | None) -> tuple[bytes | None, Claim | None]:
        found = decode(old)
        if found is None or found == instead_of:
            return mine.encode(), None
        if found.holder != mine.holder:
            return old, found
        if found.done and found.generation == mine.generation and found.result is not None:
            return old, found
        return mine.encode(), None

    return change


def renew(mine: Claim) -> Change[bool]:
    """Lengthen the lease of a run that goes on; the answer is False if the key is another's now."""

    def change(old: bytes | None) -> tuple[bytes | None, bool]:
        found = decode(old)
        if found is None:  # the lease ran out, and nobody came
            return mine.encode(), True
        if found.run != mine.run:
            return old, False
        return replace(found, renewals=found.renewals + 1).encode(), True

    return change


def finish(mine: Claim, result: object) -> Change[bool]:
    """Note that the holder has done it; the answer is False if the key is another's now."""
    done = replace(mine, done=True, result=kept(result)).encode()

    def change(old: bytes | None) -> tuple[bytes | None, bool]:
        found = decode(old)
        # Another run of the same message may go on: what is done is done.
        is_free = found is None or found.holder == mine.holder
        return (done, True) if is_free else (old, False)

    return change


def release(mine: Claim) -> Change[bool]:
    """Free the key; the answer is False if it is another's now."""

    def change(old: bytes | None) -> tuple[bytes | None, bool]:
        found = decode(old)
        if found is None:
            return old, True
        return (None, True) if found.run == mine.run else (old, False)

    return change
