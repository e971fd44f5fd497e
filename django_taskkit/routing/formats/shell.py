"""A script for each process."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from django_taskkit.routing.processes import Place, Process, comments

IN_IMAGE = False


def files(processes: Sequence[Process], place: Place) -> dict[str, str]:
    return {f"{process.name}.sh": _script(process, place) for process in processes}


def _script(process: Process, place: Place) -> str:
    lines = ["#!/bin/sh", *(f"# {comment}" for comment in comments(process))]
    if place.directory:
        lines.append(f"cd {shlex.quote(place.directory)} || exit 1")
    lines += [f"export {name}={shlex.quote(value)}" for name, value in place.environment.items()]
    # exec: the signal for a stop must reach Celery, and not a shell that passes nothing on.
    lines.append(f"exec {shlex.join([place.python, *process.arguments])}")
    return "\n".join(lines) + "\n"
