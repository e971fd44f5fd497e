"""A file for supervisord's ``conf.d``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing.processes import Place, Process, comments

IN_IMAGE = False


def files(processes: Sequence[Process], place: Place) -> dict[str, str]:
    """Return the file.

    Raises:
        ConfigurationError: a path or value can't be written in such a file, where `` ;`` and `` #`` begin a comment.
    """
    for value in (place.directory, place.user, *place.environment.values()):
        if any(mark in value for mark in (" ;", " #", '"')):
            raise ConfigurationError(f"{value!r} can't be written for supervisord, to which ' ;' and ' #' are comments")
    programs = [_program(process, place) for process in processes]
    names = ",".join(f"{place.project}-{process.name}" for process in processes)
    group = f"[group:{place.project}]\nprograms={names}\n"
    return {f"{place.project}.conf": "\n".join([*programs, group])}


def _program(process: Process, place: Place) -> str:
    environment = ",".join(f'{name}="{_literal(value)}"' for name, value in place.environment.items())
    lines = [
        *(f"; {comment}" for comment in comments(process)),
        f"[program:{place.project}-{process.name}]",
        f"command={_command([place.python, *process.arguments])}",
        f"directory={_literal(place.directory)}",
        *([f"user={_literal(place.user)}"] if place.user else ["; user=: say --user; as root, a task may do anything"]),
        *([f"environment={environment}"] if environment else []),
        "autostart=true",
        "autorestart=true",
        "startsecs=10",
        "startretries=1000000",
        "stopsignal=TERM",
        f"stopwaitsecs={process.stop_grace}",
        "; TERM for the main process alone: processes of the pool that get it too die in the midst of their tasks.",
        "stopasgroup=false",
        "; KILL, after stopwaitsecs, for all: what is left over would hold its task.",
        "killasgroup=true",
        "redirect_stderr=true",
    ]
    return "\n".join(lines) + "\n"


def _literal(text: str) -> str:
    return text.replace("%", "%%")


def _command(words: Sequence[str]) -> str:
    # Inside of quotes too a comment begins at a mark that follows a space; '' between them changes nothing.
    return _literal(" ".join(map(shlex.quote, words))).replace(" ;", " '';").replace(" #", " ''#")
