"""The base class of tasks whose message stays with the broker until its fate is written down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.contrib.django.task import DjangoTask

from django_taskkit.base_tasks.application import leave_to_celery
from django_taskkit.progress import set_progress

if TYPE_CHECKING:
    Base = DjangoTask[Any, Any]
else:
    Base = DjangoTask


class DeadLetterTask(Base):
    """A task that ends in success or in a dead letter.

    Failures of every task are captured by the installed app. This class adds what only a task can say: its
    failures are captured also with ``TASKKIT["CAPTURE"] = "opt_in"``, and its message is acknowledged late, after
    the run, so that a worker that dies takes no message with it. The price is that such a task may run twice:
    make it idempotent, or set ``acks_late = False`` and accept the loss.

    As the task class of an application it acknowledges as ``task_acks_late`` says: not every task there is yours.
    """

    abstract = True
    dead_letter = True
    acks_late = True
    reject_on_worker_lost = True

    delivery_limit: int | None = None
    """How often a message may be started before it is dead; None: as ``TASKKIT["DELIVERY_LIMIT"]`` says, 0: no limit.
    Only a process that ends while the task runs makes the broker deliver a message again."""

    hold: bool | None = None
    """Whether a chord or group waits for this task when it died, until it was requeued and succeeded, or was discarded;
    None: as ``TASKKIT["HOLD_WORKFLOWS"]`` says. The message header ``taskkit_hold`` wins."""

    def set_progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Say how far the run is; see :func:`django_taskkit.progress.set_progress`."""
        set_progress(done, total, message)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        leave_to_celery(cls, DeadLetterTask, acks_late=None)
