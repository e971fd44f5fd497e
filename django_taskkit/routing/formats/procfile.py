"""A Procfile: honcho, foreman, Heroku and their kin."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from django_taskkit.routing.processes import Place, Process, comments

IN_IMAGE = True

_HEAD = """\
# A Procfile has no place for the time that a stop may take: foreman takes it by -t, honcho and Heroku have their own.
# honcho and Heroku signal all processes at once, those of the pool too, which then die in the midst of a task.
# Development does not mind; elsewhere set REMAP_SIGTERM=SIGQUIT, with task_acks_late and worker_soft_shutdown_timeout
# below the grace period, or take another format.
"""


def files(processes: Sequence[Process], place: Place) -> dict[str, str]:
    longest = max((process.stop_grace for process in processes), default=0)
    lines = [_HEAD + f"# The longest stop takes {longest} s."]
    for process in processes:
        lines += ["", *(f"# {comment}" for comment in comments(process))]
        lines.append(f"{process.name}: {_command(process, place)}")
    return {"Procfile": "\n".join(lines) + "\n"}


def _command(process: Process, place: Place) -> str:
    command = shlex.join([place.python, *process.arguments])
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in place.environment.items())
    # A shell reads the line: without exec it stays in between, and gets the signals in Celery's place.
    command = f"exec env {variables} {command}" if variables else f"exec {command}"
    return f"cd {shlex.quote(place.directory)} && {command}" if place.directory else command
