"""The figures that were kept, and the page made of them."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from account import page
from account.fates import FATES
from account.projects import PROJECTS
from account.run import Result

FILE = Path(__file__).with_name("figures.json")

KEY = ("mix", "durable", "messages", "project", "broker", "celery")

BROKER_NAMES = {"redis": "Redis", "rabbitmq": "RabbitMQ", "rabbitmq-quorum": "RabbitMQ, quorum queues"}

Row = dict[str, Any]


def keep(result: Result) -> None:
    """Remember the figures of a run in place of an earlier one of the same kind; runs may be side by side."""
    new = result.figures()
    with FILE.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        kept = [figures for figures in load() if _key(figures) != _key(new)]
        file.truncate(0)
        file.write(json.dumps(sorted([*kept, new], key=_key), indent=1) + "\n")


def load() -> list[Row]:
    return json.loads(FILE.read_text() or "[]") if FILE.exists() else []


def _key(figures: Row) -> list[str]:
    key = [str(figures[name]) for name in KEY]
    key[KEY.index("project")] = f"{list(PROJECTS).index(figures['project'])}"
    key[KEY.index("broker")] = f"{list(BROKER_NAMES).index(figures['broker'])}"
    key[KEY.index("messages")] = f"{figures['messages']:09}"
    return key


def markdown() -> str:
    """The page; each of its tables has the runs of one kind."""
    rows = sorted(load(), key=_key)
    durable = [row for row in rows if row["durable"] and row["project"] != "taskkit-early"]
    late = [row for row in durable if row["project"] == "taskkit"]
    return page.TEXT.format(
        celery=", ".join(sorted({row["celery"] for row in rows})),
        tasks=_shares(kind="task"),
        workflows=_shares(kind="workflow"),
        messages=_shares(kind="message"),
        toxic=_shares(toxic=True),
        standard=_table(row for row in durable if row["mix"] == "standard"),
        everything=_table(row for row in durable if row["mix"] == "toxic"),
        reasons=_reasons([row for row in late if row["mix"] == "toxic"]),
        early=_table(row for row in rows if row["project"] == "taskkit-early"),
        forgetful=_table(row for row in rows if not row["durable"]),
        faults=_faults(rows),
    )


def _shares(kind: str = "", toxic: bool = False) -> str:
    chosen = [fate for fate in FATES.values() if fate.toxic == toxic and kind in ("", fate.kind)]
    return ", ".join(f"{fate.name.replace('_', ' ')} {fate.share}" for fate in chosen)


def _markdown(head: list[str], lines: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


def _table(chosen: Iterable[Row]) -> str:
    rows = list(chosen)
    ends = "succeeded | dead letters | waiting | state only | **missing** | again | also dead"
    head = ["project", "broker", "messages", "sent", *ends.split(" | ")]
    forgetful = any(not row["durable"] for row in rows)
    return _markdown(head + ["forgotten"] * forgetful, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    cells = [
        *_names(row),
        _number(row["messages"]),
        _number(row["items"]),
        _number(row["succeeded"]),
        _number(sum(row["dead"].values())),
        _number(sum(row["waiting"].values())) + (" (stopped)" if row["capped"] else ""),
        _number(row["state_only"]),
        f"**{_number(row['missing'])}**",
        _number(sum(row["duplicates"].values())),
        _number(sum(row["also_dead"].values())),
    ]
    return cells if row["durable"] else [*cells, _number(row["lost_by_broker"])]


def _names(row: Row) -> list[str]:
    return [PROJECTS[row["project"]].title, BROKER_NAMES[row["broker"]]]


def _reasons(rows: list[Row]) -> str:
    reasons = sorted({reason for row in rows for reason in row["dead"]})
    head = ["reason", *(f"{BROKER_NAMES[row['broker']]}, {_number(row['messages'])}" for row in rows)]
    return _markdown(
        head, [[f"`{reason}`", *(_number(row["dead"].get(reason, 0)) for row in rows)] for reason in reasons]
    )


def _faults(rows: list[Row]) -> str:
    kinds = ("children killed", "workers killed", "broker outages", "database outages")
    head = ["project", "broker", "messages", "mix", *kinds, "worker starts", "not accepted", "seconds"]
    return _markdown(
        head,
        [
            [
                *_names(row),
                _number(row["messages"]),
                row["mix"] if row["durable"] else f"{row['mix']}, no persistence",
                *(str(row["faults"].get(kind, 0)) for kind in kinds),
                str(row["worker_starts"]),
                _number(sum(row["refused"].values())),
                str(row["seconds"]),
            ]
            for row in rows
        ],
    )


def _number(count: int) -> str:
    return f"{count:,}".replace(",", " ")
