"""Waiting until everything is sent and settled, and saying how far it is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from account import balance
from account.programs import Program
from account.stage import Stage

QUIET = 30
"""Seconds without any change after which nothing more will happen; more than two visibility timeouts."""

LOOK_EVERY = 2.0
PROGRESS_EVERY = 15.0


class Watch:
    """Looks at a run from outside, by its ledger and its tables."""

    def __init__(self, stage: Stage, say: Callable[[str], None]) -> None:
        self.stage = stage
        self.say = say
        self._began = self._said = time.monotonic()
        self._sent = balance.Sent()
        self._ledger = stage.ledger()

    def look(self) -> balance.Sent:
        self._sent.take(self._ledger.new_lines())
        return self._sent

    def until_sent(self, producer: Program, timeout: float) -> None:
        """Wait for the producer to end.

        Raises:
            AssertionError: it was not done within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while producer.alive:
            assert time.monotonic() < deadline, f"not everything was sent within {timeout:.0f} s"
            time.sleep(0.5)
            self._say_what_ran()

    def until_half_ran(self, timeout: float) -> None:
        """Wait until half of all items were started, at most ``timeout`` seconds: on a machine that is slow."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            items = self.look().items.values()
            if sum(item.starts > 0 for item in items) >= len(items) / 2:
                return
            time.sleep(LOOK_EVERY)
            self._say_what_ran()

    def _say_what_ran(self) -> None:
        if self._is_time():
            items = self.look().items.values()
            self._say(f"{len(items)} items sent, {sum(item.successes > 0 for item in items)} succeeded")

    def until_quiet(self, cap: float) -> bool:
        """True when every item is settled, or nothing has changed for long; False when ``cap`` seconds have passed."""
        began = since = time.monotonic()
        last = None
        while time.monotonic() < began + cap:
            sent = self.look()
            open_items = balance.settle(self.stage, sent)
            items = sent.items.values()
            open_items += [item for item in items if item.detail in ("outbox", "spool")]
            if not open_items:
                return True
            if self._is_time():
                ends = Counter(item.end for item in items)
                counts = [f"{ends[end]} {end}" for end in ("succeeded", "dead", "waiting", "state only") if ends[end]]
                counts.append(f"{ends['missing']} on their way")
                self._say(f"all {len(items)} items sent: {', '.join(counts)}")
            seen = (len(open_items), self._ledger.offset, self.stage.ready())
            if seen != last:
                last, since = seen, time.monotonic()
            elif time.monotonic() - since > QUIET:
                return True
            time.sleep(max(LOOK_EVERY, len(items) / 5000))
        return False

    def _is_time(self) -> bool:
        return time.monotonic() - self._said > PROGRESS_EVERY

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        self.say(f"  {self._said - self._began:4.0f} s: {text}")
