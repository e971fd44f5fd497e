"""The projects that are held to account: how each sets Celery up, and what its tasks are made of."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

PROJECT_VARIABLE = "TASKKIT_TEST_PROJECT"

LATE = {"task_acks_late": True, "task_reject_on_worker_lost": True}


@dataclass(frozen=True)
class Project:
    """One way to set Celery up."""

    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    taskkit: dict[str, Any] | None = None
    """The setting ``TASKKIT``; None: django_taskkit is not installed."""

    @property
    def ours(self) -> bool:
        return self.taskkit is not None


PROJECTS = {
    "default": Project("plain Celery, its defaults"),
    "plain": Project("plain Celery, acknowledged late", LATE),
    "taskkit": Project("django-taskkit", LATE, taskkit={}),
    "taskkit-early": Project("django-taskkit, acknowledged early", taskkit={}),
    "taskkit-outbox": Project('django-taskkit, `OUTBOX = "always"`', LATE, taskkit={"OUTBOX": "always"}),
}


def here() -> Project:
    """The project that this process belongs to."""
    return PROJECTS[os.environ[PROJECT_VARIABLE]]


def transport_settings(project: Project, broker: str) -> dict[str, Any]:
    """What django-taskkit's documentation tells its users to set for their broker; plain Celery has its own part."""
    if project is PROJECTS["default"]:
        return {}
    if broker != "redis":
        return {"broker_transport_options": {"confirm_publish": True}}
    return {"broker_transport": "django_taskkit.transports.redis:Transport"} if project.ours else {}
