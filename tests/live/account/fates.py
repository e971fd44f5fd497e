"""Everything that can become of a message, how often it is sent, and how."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from account.sending import Sending

Send = Callable[["Sending"], None]


@dataclass(frozen=True)
class Fate:
    name: str
    share: int
    """Of 1000 messages; at least one is sent of each."""
    send: Send
    parts: str = "a"
    """One letter for each item that has to be somewhere at the end."""
    most: int | None = None
    """No more of these, however many are sent in all."""
    toxic: bool = False
    """It ends, wedges or keeps busy a whole worker of plain Celery."""
    kind: str = "task"
    """``task``, ``workflow`` or, where it is not as Celery would send it, ``message``."""


FATES: dict[str, Fate] = {}


def _fate(name: str, share: int, send: Send, **more: Any) -> None:
    FATES[name] = Fate(name, share, send, **more)


def _runs(name: str, share: int, task: str = "", toxic: bool = False, most: int | None = None, **options: Any) -> None:
    _fate(name, share, lambda sending: sending.task(task or name, **options), toxic=toxic, most=most)


_runs("succeeds", 560)
_runs("succeeds_slowly", 20, "succeeds", kwargs={"seconds": 1})
_runs("succeeds_later", 20, "succeeds", countdown=3)
_runs("succeeds_much_later", 5, "succeeds", countdown=15)
_runs("raises", 60)
_runs("raises_twice", 5)
_runs("recovers", 40)
_runs("exhausts", 30)
_runs("returns_nonsense", 8)
_runs("takes_too_long", 6)
_runs("takes_far_too_long", 6)
_runs("kills_its_process", 8)
_runs("leaves_its_process", 6)
_runs("exits", 6)
_runs("interrupts", 4)
_runs("raises_no_exception", 4)
_runs("rejects", 8)
_runs("wrong_arguments", 8, "succeeds", kwargs={"colour": "red"})
_runs("unregistered", 8, "was_removed")
_runs("expired", 8, "succeeds", expires=0.01)
_runs("runs_out_of_memory", 3, toxic=True, most=20)
_runs("kills_its_worker", 1, toxic=True, most=4)
_runs("gives_back_for_ever", 1, toxic=True, most=4)


def _revoked(sending: Sending) -> None:
    sending.revoke()
    sending.task("succeeds", kwargs={"seconds": 0.5})


def _terminated(sending: Sending) -> None:
    sending.task("succeeds", kwargs={"seconds": 4})
    sending.revoke(terminate=True, signal="SIGKILL", after=1.5)


_fate("revoked", 5, _revoked)
_fate("terminated", 4, _terminated)


def _flows(name: str, share: int, parts: str, send: Send) -> None:
    _fate(name, share, send, parts=parts, kind="workflow")


_flows("chain", 20, "ab", lambda sending: sending.chain("succeeds", "succeeds"))
_flows("chain_breaks", 20, "ab", lambda sending: sending.chain("raises", "succeeds"))
_flows("chain_killed", 4, "ab", lambda sending: sending.chain("kills_its_process", "succeeds"))
_flows("link", 5, "ab", lambda sending: sending.linked("succeeds", "succeeds"))
_flows("chord", 8, "abcd", lambda sending: sending.chord(["succeeds"] * 3, "succeeds"))
_flows("chord_breaks", 8, "abc", lambda sending: sending.chord(["succeeds", "raises"], "succeeds"))


def _arrives(name: str, share: int, body: str, toxic: bool = False, **changes: Any) -> None:
    """A message that is not as Celery would send it; ``TOKEN`` in its body is the item."""
    _fate(name, share, lambda sending: sending.raw(body, **changes), toxic=toxic, kind="message")


GOOD = '[[], {"item": "TOKEN"}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'

_arrives("undecodable", 5, '[[], {"item": "TOKEN"')
_arrives("undecodable_nameless", 3, '{"order": "TOKEN', headers={})
_arrives("wrong_encoding", 3, '[["\udcff\udcfe"], {"item": "TOKEN"}, {}]')
_arrives("pickle", 5, "\udc80\x04TOKEN.", content_type="application/x-python-serialize", content_encoding="binary")
_arrives("unknown_type", 3, "<order>TOKEN</order>", content_type="application/xml")
_arrives("no_task", 5, '{"order": "TOKEN"}', headers={})
_arrives("bad_eta", 4, GOOD, headers={"eta": "tomorrow"})
_arrives("bad_expires", 4, GOOD, headers={"expires": "never"})
_arrives("bad_kwargs", 2, '[[], ["TOKEN"], {}]')
_arrives("bad_embed", 2, '[[], {"item": "TOKEN"}, ["TOKEN"]]')
for _name, _body in {
    "number": "42",
    "null": "null",
    "text": '"TOKEN"',
    "mapping": '{"TOKEN": 1}',
    "empty": "[]",
    "pair": '[["TOKEN"], {}]',
    "four": '[[], {"item": "TOKEN"}, {}, {}]',
}.items():
    _arrives(f"garbage_{_name}", 1, _body, toxic=True)


def planned(count: int, seed: int, toxic: bool) -> list[Fate]:
    """``count`` fates in the order in which they are sent; the same seed gives the same ones."""
    mix = [fate for fate in FATES.values() if toxic or not fate.toxic]
    plan = []
    for fate in mix:
        plan += [fate] * min(max(1, count * fate.share // 1000), fate.most or count)
    random.Random(seed).shuffle(plan)
    filler = [FATES["succeeds"]] * (count - len(plan))
    plan += filler
    random.Random(seed + 1).shuffle(plan)
    return plan
