"""What is known of one policy of a task, as tables and a plot, or as facts for a program."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from celery import Celery
from celery.utils.quorum_queues import detect_quorum_queues

from django_taskkit.base_tasks.survival import CERTAIN, HORIZON, SOON, Retry, Spread, Survival
from django_taskkit.management.plot import Pen, duration, plot
from django_taskkit.management.retry_plans import Plan
from django_taskkit.management.terminal import Output, table
from django_taskkit.outbox.delays import safe_hold
from django_taskkit.outbox.publishing import choice_for

ROWS = 15
"""Retries that are shown one by one; then comes the last."""

WITHOUT_TERMINAL = 80
"""Characters of a plot that goes to a file."""


class Broker:
    """What the project's broker does with a message that has to wait; nothing connects to it."""

    def __init__(self, app: Celery) -> None:
        self.driver: str = app.connection_for_write().transport.driver_type
        self.holds = safe_hold(app, self.driver, natively=detect_quorum_queues(app, self.driver)[0])
        """Seconds."""
        self._app = app

    def keeps(self, task_name: str) -> bool:
        """Say whether the outbox takes what is delayed for longer."""
        return choice_for(self._app, task_name, None) != "never"


@dataclass(frozen=True)
class Forecast:
    """What becomes of some failures of a task in an outage."""

    task: str
    plan: Plan
    survival: Survival | None
    """None: they are never retried."""
    outages: tuple[float, ...]
    """Seconds, in order."""
    are_asked: bool
    """Whether somebody has named these outages."""
    broker: Broker


def facts_of(forecast: Forecast) -> dict[str, Any]:
    """Return everything as JSON; times are seconds, and null where there is no limit."""
    plan, survival, broker = forecast.plan, forecast.survival, forecast.broker
    facts: dict[str, Any] = {"task": forecast.task, "policy": plan.of, "retried": survival is not None}
    if survival is None:
        return facts
    return {
        **facts,
        "rules": str(plan.policy),
        "retries": [
            {
                "retry": retry.number,
                "delay": vars(retry.delay),
                "start": vars(retry.start),
                "odds": retry.odds,
                "soon": retry.soon,
                "beyond_broker": retry.longer_than(broker.holds),
            }
            for retry in survival.retries
        ],
        "total": None if survival.is_endless else vars(survival.span),
        "survives": {str(odds): _finite(survival.survived(odds)) for odds in (CERTAIN, 0.5)},
        "outages": [
            {"outage": outage, "odds": survival.odds(outage), "wasted": survival.wasted(outage)}
            for outage in forecast.outages
        ],
        "not_counted": plan.others,
        "deadline": getattr(plan.policy, "retry_for", None),
        "broker": {"driver": broker.driver, "holds": _finite(broker.holds), "outbox": broker.keeps(forecast.task)},
        "samples": len(survival.runs),
        "exact": survival.is_exact,
        "endless": survival.is_endless,
        "cut": survival.is_cut,
    }


def write(out: Output, forecast: Forecast, *, pen: Pen | None, mark: float | None = None) -> None:
    """Write tables, sentences and, with a ``pen``, a plot; ``mark`` is the seconds of an outage to draw into it."""
    plan, survival = forecast.plan, forecast.survival
    out.line(f"{forecast.task}, after {plan.title}")
    if survival is None or not survival.retries:
        out.line("Never retried: dead at the first failure.")
        out.line()
        return
    out.line(str(plan.policy))
    out.line()
    _write_retries(out, survival, forecast.broker)
    out.line()
    for sentence in _sentences(forecast, survival):
        out.line(sentence)
    out.line()
    _write_outages(out, forecast, survival)
    out.line()
    if pen:
        for line in _plot(out, survival, pen, mark):
            out.line(line)
        out.line()


def _write_retries(out: Output, survival: Survival, broker: Broker) -> None:
    columns: list[tuple[str, Callable[[Retry], str]]] = [
        ("RETRY", lambda retry: str(retry.number)),
        ("DELAY", lambda retry: _range(retry.delay)),
        ("P50", lambda retry: duration(retry.delay.median)),
        ("STARTS AFTER", lambda retry: _range(retry.start)),
        ("P50", lambda retry: duration(retry.start.median)),
        (f"WITHIN {duration(SOON)}", lambda retry: percent(retry.soon)),
    ]
    shown = [retry for retry in _shown(survival) if retry is not None]
    if any(retry.odds < 1 for retry in shown):
        columns.append(("ODDS", lambda retry: percent(retry.odds)))
    if any(retry.longer_than(broker.holds) for retry in shown):
        columns.append(("OUTBOX", lambda retry: percent(retry.longer_than(broker.holds))))
    rows = [[cell(retry) for _, cell in columns] if retry else ["..."] * len(columns) for retry in _shown(survival)]
    table(out, [head for head, _ in columns], rows, whole=range(len(columns)))


def _shown(survival: Survival) -> Iterator[Retry | None]:
    """Yield the first retries, and the last; None for what is left out."""
    retries = survival.retries
    few = len(retries) <= ROWS + 1
    yield from retries if few else retries[:ROWS]
    if not few:
        yield None
        if not survival.is_cut:
            yield retries[-1]


def _sentences(forecast: Forecast, survival: Survival) -> Iterator[str]:
    retries, broker = survival.retries, forecast.broker
    if survival.is_endless:
        yield "Nothing ends the retries: any outage is survived, and a task that can't succeed is never dead."
    else:
        least = "at least " if survival.is_cut else ""
        yield (
            f"Survives an outage of {least}{duration(survival.survived(CERTAIN))} in {CERTAIN:.0%} of cases, "
            f"of {least}{duration(survival.survived(0.5))} in 50%."
        )
        if survival.is_cut:
            yield f"It has more than {HORIZON} retries; only those were looked at."
        else:
            yield f"Dead {_range(survival.span)} after the first failure if the outage goes on."
    yield from _deadline(forecast, survival)
    beyond = [retry for retry in retries if retry.longer_than(broker.holds)]
    if not beyond:
        yield f"No delay is longer than the broker ({broker.driver}) holds safely: {_held(broker)}."
    else:
        held = _held(broker)
        yield f"The broker ({broker.driver}) holds delays up to {held} safely; {_numbers(beyond)} may wait longer."
        if broker.keeps(forecast.task):
            yield "Those wait in the outbox: manage.py taskkit relay must be running."
        else:
            yield "The outbox, which is off, would keep them; now they may run more than once, or block a worker."
    if forecast.plan.others:
        yield f"Not in these numbers: {', '.join(forecast.plan.others)}."
    if not survival.is_exact:
        yield f"Computed from {len(survival.runs)} random cases."


def _deadline(forecast: Forecast, survival: Survival) -> Iterator[str]:
    policy: Any = forecast.plan.policy
    deadline = getattr(policy, "retry_for", None)
    if deadline is None or survival.is_cut:
        return
    limit = getattr(policy, "max_retries", None)
    cut = 1.0 if limit is None else 1 - (survival.retries[-1].odds if len(survival.retries) == limit else 0.0)
    if cut:
        yield f"retry_for of {duration(deadline)} ends the retries in {percent(cut)} of cases."
    else:
        yield f"retry_for of {duration(deadline)} changes nothing: max_retries of {limit} ends them before."


def _write_outages(out: Output, forecast: Forecast, survival: Survival) -> None:
    rows = []
    for outage in forecast.outages:
        odds = survival.odds(outage)
        rows.append([duration(outage), percent(odds), _wasted(survival, survival.wasted(outage))])
        if not odds and not forecast.are_asked:
            break  # nor is one that lasts longer
    table(out, ["OUTAGE", "SURVIVED", "WASTED RETRIES"], rows, whole=range(3))


def _wasted(survival: Survival, wasted: float) -> str:
    number = f"{wasted:.1f}".removesuffix(".0")
    if survival.is_cut:
        return f"{'at least ' if wasted > HORIZON - 1 else ''}{number}"
    return f"{number} of {len(survival.retries)}"


def _plot(out: Output, survival: Survival, pen: Pen, mark: float | None) -> list[str]:
    shown = list(_shown(survival))
    bars = [(f"retry {retry.number}", retry.start) if retry else ("...", None) for retry in shown]
    longest = max(retry.start.most for retry in shown if retry)
    return plot(
        bars,
        survival.odds,
        longest=max(longest, mark or 0.0),
        width=shutil.get_terminal_size().columns if out.is_terminal else WITHOUT_TERMINAL,
        pen=pen,
        outage=mark,
    )


def percent(odds: float) -> str:
    """Return odds as a percentage that says 0 or 100 only for what is never or always so."""
    if 0 < odds < 0.01:
        return "<1%"
    if 0.99 < odds < 1:
        return ">99%"
    return f"{odds:.0%}"


def _range(spread: Spread) -> str:
    least, most = duration(spread.least), duration(spread.most)
    return least if least == most else f"{least} - {most}"


def _held(broker: Broker) -> str:
    return "any delay" if math.isinf(broker.holds) else duration(broker.holds)


def _numbers(retries: list[Retry]) -> str:
    first, last = retries[0].number, retries[-1].number
    if first == last:
        return f"retry {first}"
    return f"retries {first} to {last}" if last - first + 1 == len(retries) else f"some of retries {first} to {last}"


def _finite(seconds: float) -> float | None:
    return None if math.isinf(seconds) else seconds
