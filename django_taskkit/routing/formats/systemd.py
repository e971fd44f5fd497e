"""A unit for each process, and a target for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing.processes import Place, Process, comments

IN_IMAGE = False


def files(processes: Sequence[Process], place: Place) -> dict[str, str]:
    """Return the units.

    Raises:
        ConfigurationError: interpreter, directory or file of variables is not an absolute path; systemd takes no other.
    """
    # A hyphen before it: the file may be missing.
    paths = {"python": place.python, "directory": place.directory, "env_file": place.env_file.removeprefix("-")}
    for what, path in paths.items():
        if not path.startswith("/") and (path or what != "env_file"):
            raise ConfigurationError(f"{what} is {path!r}, but systemd wants an absolute path")
    return {
        f"{place.project}.target": _target(place),
        **{f"{place.project}-{process.name}.service": _service(process, place) for process in processes},
    }


def _target(place: Place) -> str:
    return f"""\
# systemctl enable --now {place.project}.target; the services of it are enabled one by one.
[Unit]
Description={_literal(place.project)}: workers and what belongs to them

[Install]
WantedBy=multi-user.target
"""


def _service(process: Process, place: Place) -> str:
    lines = [
        *(f"# {comment}" for comment in comments(process)),
        "[Unit]",
        f"Description={_literal(place.project)}: {process.name}",
        "After=network-online.target",
        "Wants=network-online.target",
        f"PartOf={place.project}.target",
        "# Tried again for ever, as a broker that is away comes back.",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=exec",
        f"WorkingDirectory={_literal(place.directory)}",
        *(
            [f"User={_literal(place.user)}"]
            if place.user
            else ["# User=: say --user; as root, a task may do anything."]
        ),
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in place.environment.items()),
        *([f"EnvironmentFile={_literal(place.env_file)}"] if place.env_file else []),
        f"ExecStart={' '.join([_quoted(place.python), *map(_argument, process.arguments)])}",
        "# TERM for the main process alone: processes of the pool that get it too die in the midst of their tasks.",
        "KillMode=mixed",
        "KillSignal=SIGTERM",
        f"TimeoutStopSec={process.stop_grace}",
        "Restart=always",
        "RestartSec=5",
        "# A process of the pool that the kernel kills for its memory is replaced; by default all would be stopped.",
        "OOMPolicy=continue",
        "",
        "[Install]",
        f"WantedBy={place.project}.target",
    ]
    return "\n".join(lines) + "\n"


def _literal(text: str) -> str:
    """Return ``text`` for a setting that systemd does not part into words."""
    return text.replace("%", "%%")


def _argument(text: str) -> str:
    """Return ``text`` as one word of ExecStart, in which variables are replaced as well."""
    return _quoted(text.replace("$", "$$"))


def _quoted(text: str) -> str:
    text = text.replace("%", "%%")
    if text and all(char.isalnum() or char in "-_=+.,:/@%$" for char in text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
