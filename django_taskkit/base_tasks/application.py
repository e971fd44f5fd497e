"""What our classes leave to Celery as the task class of a whole application.

``Celery(task_cls=...)`` makes it the class of every task that names no other, also of Celery's own and of other
people's. None of these was written to run twice, or to fail later than it does.
"""

from __future__ import annotations

from typing import Any


def leave_to_celery(cls: type, ours: type, **celery_defaults: Any) -> None:
    """If ``cls`` is the class that an application derives for its tasks, give it Celery's defaults again.

    Only for options that nobody but ``ours`` has set: what a class of the project says, it says for all tasks.
    """
    if "_app" not in vars(cls):  # Celery writes the application into the class that it derives, and into no other
        return
    for option, default in celery_defaults.items():
        if next(base for base in cls.__mro__ if option in vars(base)) is ours:
            setattr(cls, option, default)
