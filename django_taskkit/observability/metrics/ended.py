"""What processes have counted that are gone: kept in one file of each kind, so that a scrape reads few.

A pool that replaces its processes leaves a file of 64 KB and more for each of them, for good.
"""

from __future__ import annotations

import logging
import os
import re
import struct
from pathlib import Path
from typing import Any

from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import mark_process_dead

logger = logging.getLogger("django_taskkit")

KEPT = "ended"
_OF_A_PROCESS = re.compile(r"(?P<kind>counter|histogram|summary|gauge_\w+)_(?P<pid>\d+)\.db")


def keep(folder: str) -> None:
    """Add up the files in ``folder`` of processes that are gone, and delete them.

    A file that can't be read goes too, with what was in it: one that is there makes every scrape fail. A process that
    is killed right after it has made its file leaves an empty one.

    Only for a folder of one worker, which alone calls this, and not at the same time as another scrape.
    """
    for path in sorted(Path(folder).glob("*.db")):
        found = _OF_A_PROCESS.fullmatch(path.name)
        if found is None or _is_alive(int(found["pid"])):
            continue
        if found["kind"].startswith("gauge"):
            mark_process_dead(int(found["pid"]), folder)  # type: ignore[no-untyped-call]
            continue
        try:
            _add(path, path.with_name(f"{found['kind']}_{KEPT}.db"))
        except (struct.error, ValueError, OSError, RuntimeError) as exc:
            logger.warning(
                "metrics: what the process %s has counted can't be read and is lost: %s: %s (%s, %d bytes)",
                *(found["pid"], type(exc).__name__, exc, path.name, path.stat().st_size),
            )
        path.unlink(missing_ok=True)


def _add(path: Path, total: Path) -> None:
    dictionary: Any = MmapedDict
    sums = dictionary(str(total))
    try:
        for key, value, timestamp, _position in dictionary.read_all_values_from_file(str(path)):
            if value:
                sums.write_value(key, sums.read_value(key)[0] + value, timestamp)
    finally:
        sums.close()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
