"""Are there workers, all of one kind, and do they know the tasks that they are sent?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from django_taskkit import conf
from django_taskkit.doctor.finding import Finding, error, ok, unknown, warning
from django_taskkit.doctor.site import Site
from django_taskkit.observability.workers import WorkerState, can_ask

WORKERS = "workers"
WITHOUT_APP = "worker-without-taskkit"
VERSIONS = "worker-versions"
TASKS = "worker-tasks"

SHOWN = 5
"""Names in one sentence."""

PARTS = {
    "celery": "Celery",
    "kombu": "kombu",
    "django": "Django",
    "python": "Python",
    "taskkit": "django-taskkit",
    "release": "release",
}


def workers(site: Site) -> Iterator[Finding]:
    """``workers``, ``worker-without-taskkit``, ``worker-versions``, ``worker-tasks``."""
    if not can_ask(site.app):
        yield unknown(WORKERS, f"Over this broker ({site.driver}) workers can't be asked anything.")
        return
    found = site.workers()
    if not found:
        if any(state.consumers for state in site.queues()):
            yield warning(
                WORKERS,
                "No worker answers, and yet queues have consumers.",
                "A worker with the pool solo answers between two tasks only, one that is stuck never; a consumer may "
                "be another program. Look again, and at the workers' logs.",
            )
            return
        yield error(
            WORKERS,
            "No worker answers.",
            "Start one (`manage.py taskkit workers` prints command lines). Before a deployment's first start, leave "
            "these probes out: --skip workers --skip queues.",
        )
        return
    slots = sum(worker.concurrency or 0 for worker in found)
    yield ok(WORKERS, f"{_names(worker.hostname for worker in found)} answered, with room for {_tasks(slots)}.")
    yield from without_app(found)
    yield versions(found)
    yield from tasks(site, found)


def without_app(found: list[WorkerState]) -> Iterator[Finding]:
    strangers = [worker.hostname for worker in found if not worker.taskkit_version]
    if strangers:
        yield error(
            WITHOUT_APP,
            f"{_names(strangers)} did not say which django_taskkit it has: what dies there may not be kept.",
            'Add "django_taskkit" to its INSTALLED_APPS, update it if it is an older release, and restart it.',
        )
    else:
        yield ok(WITHOUT_APP, "Each worker has django_taskkit installed.")


def versions(found: list[WorkerState]) -> Finding:
    """Compare the workers with each other, and with this process where that says something."""
    ours = {"release": conf.current().release}
    differing = []
    for part, shown in PARTS.items():
        running: defaultdict[str, list[str]] = defaultdict(list)
        for worker in found:
            value = worker.release if part == "release" else getattr(worker, f"{part}_version")
            if value:
                running[value].append(worker.hostname)
        if own := ours.get(part):
            running[own].append("this process")
        if len(running) > 1:
            differing.append(f"{shown}: " + ", ".join(f"{value} ({_names(who)})" for value, who in running.items()))
    if not differing:
        return ok(VERSIONS, f"All workers have the same versions: {_versions(found)}.")
    return warning(
        VERSIONS,
        f"Workers differ. {'; '.join(differing)}.",
        "While a release is being rolled out that is normal; otherwise restart those that were forgotten.",
    )


def _versions(found: list[WorkerState]) -> str:
    known = next((worker for worker in found if worker.taskkit_version), None)
    if known is None:
        return "none is told"
    of = {part: known.release if part == "release" else getattr(known, f"{part}_version") for part in PARTS}
    return ", ".join(f"{PARTS[part]} {value}" for part, value in of.items() if value)


def tasks(site: Site, found: list[WorkerState]) -> Iterator[Finding]:
    """Compare the tasks that this process could send with those that the readers of their queues know."""
    unknown_to: defaultdict[str, list[str]] = defaultdict(list)
    for name in site.task_names():
        queue = site.queue_of(name)
        for worker in found:
            if worker.tasks is not None and queue in worker.queues and name not in worker.tasks:
                unknown_to[worker.hostname].append(name)
    if not unknown_to:
        yield ok(TASKS, "Each worker knows the tasks of the queues that it reads.")
        return
    for hostname, names in unknown_to.items():
        yield error(
            TASKS,
            f"{hostname} does not know {_names(names)}, and reads the queue that they are sent to: there they become "
            "dead letters (unregistered).",
            "Restart it with the current code; does its app import the module (autodiscover_tasks, imports)?",
        )


def _tasks(number: int) -> str:
    return "1 task at a time" if number == 1 else f"{number} tasks at a time"


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    rest = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + rest
