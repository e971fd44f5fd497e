"""Worker command lines as files: one module for each kind of supervisor.

A format is a module with ``files(processes, place)``, which returns the files' texts by name, and with ``IN_IMAGE``,
true where an image says which Python runs, and in which folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing.processes import Place, Process

FORMATS = ("shell", "procfile", "systemd", "supervisor", "compose", "k8s")

_ONLY_IN = {
    "user": ("systemd", "supervisor", "compose"),
    "env_file": ("systemd", "compose"),
    "image": ("compose", "k8s"),
}
"""What of a place not every format can say."""


def files(name: str, processes: Sequence[Process], place: Place) -> dict[str, str]:
    """Return the texts by file name that start ``processes`` in the format ``name``.

    Raises:
        ConfigurationError: there is no such format, or it has no word for something that ``place`` says.
    """
    if name not in FORMATS:
        raise ConfigurationError(f"There is no format {name!r}; there are {', '.join(FORMATS)}")
    for what, able in _ONLY_IN.items():
        if (value := getattr(place, what)) and name not in able:
            raise ConfigurationError(
                f"{what} is {value!r}, and the format {name} has no word for it; leave it out, or take one of "
                f"{', '.join(able)}"
            )
    written: dict[str, str] = import_module(f"{__name__}.{name}").files(processes, place)
    return written


def runs_in_image(name: str) -> bool:
    """Say whether the format's processes run where an image has the Python and the project."""
    return bool(import_module(f"{__name__}.{name}").IN_IMAGE)
