"""Which process is it, and is it gone? Said in a line of text that another process of the machine understands."""

from __future__ import annotations

import os

_NAMESPACE = "/proc/self/ns/pid"
_BOOT = "/proc/sys/kernel/random/boot_id"


def of_this_process() -> str:
    """Return a text that no other process has, not even one that gets the same number later; empty if not on Linux."""
    place, pid = _place(), os.getpid()
    began = _began(pid)
    return f"{place}/{pid}/{began}" if place and began else ""


def is_gone(identity: str) -> bool:
    """Say whether the process has surely ended.

    False also where that can't be seen from here: it ran on another machine or in another container, or this is not
    Linux. One that was killed and that nobody has waited for is gone as well; one that is stopped is not.
    """
    place, _, rest = identity.rpartition("/")
    place, _, pid = place.rpartition("/")
    if not place or place != _place() or not pid.isdigit():
        return False
    try:
        return _began(int(pid)) != rest
    except OSError:
        return False


def are_apart(identity: str, other: str) -> bool:
    """Say whether two identities are of different containers, or of the machine before and after it was started anew.

    From neither can the other be seen: a process of the one never says that one of the other is gone.
    """
    return bool(identity and other) and identity.rsplit("/", 2)[0] != other.rsplit("/", 2)[0]


def _place() -> str:
    """The machine since it was started, and the container: where a number means one process."""
    try:
        with open(_BOOT) as file:
            return f"{file.read().strip()}/{os.readlink(_NAMESPACE)}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """When the process began, in the kernel's ticks since the start; empty if it is no more.

    See proc_pid_stat(5): the third field is the state, the 22nd the time.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
