"""``python -m django_taskkit.observability.health worker``: the probe that imports neither Django nor Celery."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from django_taskkit.observability.health.files import VARIABLE, AddressError, FolderError, default_folder, read
from django_taskkit.observability.health.judging import MAX_AGE, judge

ROLES = ("worker", "beat", "relay", "web")
URL = "http://127.0.0.1:8000/healthz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("role", choices=ROLES, help="what has to be well on this machine, or in this container")
    parser.add_argument(
        "--max-age", type=float, metavar="S", help=f"seconds without a sign of life; by default {_said(MAX_AGE)}"
    )
    parser.add_argument("--alive", action="store_true", help="ask only whether a restart would help")
    parser.add_argument("--name", help="of one worker, as with celery worker --hostname; by default all")
    parser.add_argument(
        "--queue", "--lane", action="append", default=[], dest="queues", help="a queue that a worker here consumes"
    )
    parser.add_argument(
        "--dir", dest="folder", help=f"the folder of the files; by default ${VARIABLE}, or as a worker's"
    )
    parser.add_argument("--url", default=URL, help=f"of a web process; by default {URL}")
    parser.add_argument("--host", help="the Host header for a web process, if ALLOWED_HOSTS doesn't have the URL's")


def _said(ages: dict[str, float]) -> str:
    return ", ".join(f"{age:.0f} for {role}" for role, age in ages.items())


def probe(
    role: str,
    *,
    folder: str,
    max_age: float | None = None,
    alive: bool = False,
    name: str | None = None,
    queues: Sequence[str] = (),
    url: str = URL,
    host: str | None = None,
    now: float | None = None,
) -> tuple[list[str], list[str]]:
    """Return what is well and what is not, one sentence for each process; nothing is wrong if the second is empty.

    Args:
        role: ``"worker"``, ``"beat"``, ``"relay"`` or ``"web"``.
        folder: where the processes write.
        max_age: seconds without a sign of life; of a web process, seconds to wait for its answer.
        alive: ask only whether a restart would help.
        name: of one worker, beat or relay.
        queues: what a worker has to consume.
        url: of a web process.
        host: its Host header.
        now: seconds since 1970.

    Raises:
        AddressError: ``url`` is none.
    """
    if role == "web":
        from django_taskkit.observability.health.fetching import fetch

        return fetch(url, host, max_age or 5.0)
    signs = [sign for sign in read(folder, role) if name is None or name in (sign.get("name"), sign.get("host"))]
    well, wrong = judge(
        signs, role, time.time() if now is None else now, max_age=max_age, queues=queues, only_alive=alive
    )
    if not signs:
        wrong = [f"{problem} in {folder}" for problem in wrong]
    return well, wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Say how it is, and return 0 if all is well, 1 if not, 2 if nobody can say."""
    parser = argparse.ArgumentParser(prog="python -m django_taskkit.observability.health", description=__doc__)
    add_arguments(parser)
    options = vars(parser.parse_args(arguments))
    try:
        folder = options.pop("folder") or os.environ.get(VARIABLE) or ""
        if not folder and options["role"] != "web":  # which has no file
            folder = default_folder()
        well, wrong = probe(folder=folder, **options)
    except (AddressError, FolderError) as exc:
        print(exc, file=sys.stderr)
        return 2
    return say(well, wrong)


def say(well: Sequence[str], wrong: Sequence[str]) -> int:
    for line in wrong:
        print(printable(line), file=sys.stderr)
    for line in well:
        print(printable(line))
    return 1 if wrong else 0


def printable(line: str) -> str:
    """Escape what a terminal would obey: names come from other processes."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)
