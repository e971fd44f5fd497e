"""The files by which processes say that they work: one for each, replaced as a whole, gone when the process ends.

Nothing but the standard library is imported here, for the probe reads them without Django.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
import tempfile
import zlib
from collections.abc import Mapping
from typing import Any

VARIABLE = "TASKKIT_HEALTH_DIR"
"""The environment variable that names the folder for a probe that doesn't read the settings."""


class FolderError(Exception):
    """The folder can't be used, or nobody can say which it is; the message names the remedy."""


class AddressError(Exception):
    """That is no address of a web process; the message says what one looks like."""


def default_folder(project: str | None = None, settings_file: str | None = None) -> str:
    """Return the folder of a project whose settings name none: below the temporary files, of this user alone.

    Many projects call their settings ``config.settings``: the folder's name has the place of that file, too, as a
    number.

    Args:
        project: the name of its settings module; None: as ``DJANGO_SETTINGS_MODULE`` says, else the only one there is.
        settings_file: where that module is; None: it is looked for where Python would, without importing anything; if
            it isn't there, the only folder of that name is taken.

    Raises:
        FolderError: there are several.
    """
    above = os.path.join(tempfile.gettempdir(), f"taskkit-health-{os.getuid() if hasattr(os, 'getuid') else 0}")
    project = project or os.environ.get("DJANGO_SETTINGS_MODULE") or ""
    settings_file = settings_file or _find(project)
    if settings_file:
        return os.path.join(above, f"{_file_name(project)}-{_number(settings_file)}")
    try:
        names = sorted(os.listdir(above))
    except OSError:
        names = []
    start = f"{_file_name(project)}-"
    projects = [name for name in names if not project or name.startswith(start)]
    if len(projects) > 1:
        raise FolderError(
            f"{above} has the files of several projects: {', '.join(projects)}; give --dir, or run the probe in the "
            "project's folder with DJANGO_SETTINGS_MODULE set"
        )
    return os.path.join(above, projects[0] if projects else _file_name(project or "project"))


def make_folder(folder: str) -> None:
    """Make the folder, readable for this user alone.

    Raises:
        FolderError: it is another user's, or open to others, or can't be made.
    """
    try:
        for path in (os.path.dirname(folder), folder):
            with contextlib.suppress(FileExistsError):
                os.makedirs(path, mode=0o700)
        found = os.lstat(folder)
    except OSError as exc:
        raise FolderError(f"the folder {folder} can't be made: {exc}; set TASKKIT['HEALTH_DIR'] to another") from exc
    is_safe = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o022
    if not is_safe or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        raise FolderError(
            f"{folder} is not a folder that only this user can write to; delete it, or set TASKKIT['HEALTH_DIR']"
        )


def path_of(folder: str, role: str, name: str, pid: int) -> str:
    return os.path.join(folder, f"{_file_name(f'{role}-{name}-{pid}')}.json")


def write(path: str, sign: Mapping[str, Any]) -> None:
    """Replace the file. A reader sees the old one or the new one, never half of it.

    Raises:
        OSError: it can't be written; then nothing is left behind.
    """
    new = f"{path}.new"
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with open(descriptor, "w") as file:
            json.dump(sign, file)
        os.replace(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise


def remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def read(folder: str, role: str) -> list[dict[str, Any]]:
    """Return what each process of this role wrote last; a file that is none of ours is left out."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    found = []
    for name in names:
        if name.startswith(f"{role}-") and name.endswith(".json"):
            with contextlib.suppress(OSError, ValueError), open(os.path.join(folder, name)) as file:
                sign = json.load(file)
                if isinstance(sign, dict) and sign.get("role") == role and isinstance(sign.get("at"), (int, float)):
                    found.append({**sign, "path": os.path.join(folder, name)})
    return found


def _find(module: str) -> str | None:
    """Return the file of a module; to ask importlib for it would import the packages that it is in."""
    path = module.replace(".", os.sep)
    for folder in sys.path if path else ():
        for end in (".py", f"{os.sep}__init__.py"):
            file = os.path.join(folder or os.curdir, f"{path}{end}")
            if os.path.isfile(file):
                return file
    return None


def _number(settings_file: str) -> str:
    """Return a number for a place; not of a secret, and so none that is hard to guess."""
    return f"{zlib.crc32(os.fsencode(os.path.realpath(settings_file))):08x}"


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.@-]", "_", text).lstrip(".")[:150] or "_"
