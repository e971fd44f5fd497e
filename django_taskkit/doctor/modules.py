"""Can the modules with the project's tasks be imported?"""

from __future__ import annotations

import traceback
from collections.abc import Iterator

from django_taskkit.doctor.finding import Finding, error, ok
from django_taskkit.doctor.running import said_by
from django_taskkit.doctor.site import Site

MODULES = "task-modules"


def modules(site: Site) -> Iterator[Finding]:
    """``task-modules``: all that a worker imports when it starts can be imported here."""
    exc = site.import_tasks()
    if exc is None:
        yield ok(MODULES, "All modules with tasks can be imported.")
        return
    where = traceback.extract_tb(exc.__traceback__)[-1]
    yield error(
        MODULES,
        f"A module with tasks can't be imported: {said_by(exc)} ({where.filename}, line {where.lineno}). What is said "
        "about tasks, queues and workers lacks the tasks in it.",
        "Mend it, or install what it imports: a worker with this code does not start either.",
    )
