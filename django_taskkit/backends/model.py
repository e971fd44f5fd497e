"""The table of what has become of Django's tasks."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.db import models, router
from django.utils.translation import gettext_lazy as _

from django_taskkit.dlq.models import TaskIdField

if TYPE_CHECKING:
    TextField = models.TextField[Any, Any]
else:
    TextField = models.TextField


class JSONTextField(TextField):
    """A value as JSON text in ASCII: PostgreSQL's ``jsonb`` refuses NUL and lone surrogates, which JSON may have."""

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Any:
        return None if value is None else json.loads(value)

    def to_python(self, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value

    def get_prep_value(self, value: Any) -> Any:
        return json.dumps(value, separators=(",", ":"))

    def value_to_string(self, obj: models.Model) -> str:
        return str(self.get_prep_value(self.value_from_object(obj)))


class TaskState(models.TextChoices):
    """As ``TaskResultStatus`` of Django, which is not in every Django."""

    READY = "READY", _("ready")
    RUNNING = "RUNNING", _("running")
    FAILED = "FAILED", _("failed")
    SUCCESSFUL = "SUCCESSFUL", _("successful")


FINISHED = (TaskState.FAILED, TaskState.SUCCESSFUL)


class DjangoTaskResult(models.Model):
    """What was enqueued by ``django.tasks``, and what has become of it."""

    task_id = TaskIdField(_("task id"), max_length=64, primary_key=True)
    """Of Django's result, of Celery's message, and of the dead letter, if there is one."""
    task_path = models.CharField(_("task"), max_length=255)
    backend = models.CharField(_("backend"), max_length=255)
    queue_name = models.CharField(_("queue"), max_length=255)
    priority = models.SmallIntegerField(_("priority"))
    run_after = models.DateTimeField(_("run after"), null=True, blank=True)
    args = JSONTextField(_("arguments"))
    kwargs = JSONTextField(_("keyword arguments"))

    status = models.CharField(_("status"), max_length=16, choices=TaskState.choices)
    generation = models.PositiveIntegerField(_("generation"), default=0)
    """How often the message had been requeued when this was noted; what an older one does later changes nothing."""
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    enqueued_at = models.DateTimeField(_("enqueued at"))
    started_at = models.DateTimeField(_("started at"), null=True, blank=True)
    last_attempted_at = models.DateTimeField(_("last attempted at"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True, db_index=True)
    return_value = JSONTextField(_("return value"), null=True, blank=True)
    errors = JSONTextField(_("errors"), default=list)
    worker_ids = JSONTextField(_("workers"), default=list)

    class Meta:
        verbose_name = _("Django task result")
        verbose_name_plural = _("Django task results")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.task_path}[{self.task_id}]"


def ready_again(generations: Mapping[str, int]) -> None:
    """Note that dead letters were put back: task ids with the number of the requeue.

    A run that has begun meanwhile knows that number already, and what it has noted stays. So does a success: where a
    message was delivered twice, the letter is of the one that failed, and the requeued one ends as the other has.
    """
    ids: defaultdict[int, list[str]] = defaultdict(list)
    for task_id, generation in generations.items():
        ids[generation].append(task_id)
    rows = DjangoTaskResult.objects.using(router.db_for_write(DjangoTaskResult))
    for generation, of_it in ids.items():
        rows.filter(pk__in=of_it, generation__lt=generation).exclude(status=TaskState.SUCCESSFUL).update(
            status=TaskState.READY, generation=generation, finished_at=None, return_value=None
        )
