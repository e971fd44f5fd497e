"""What ``manage.py check`` says about settings and tasks, and ``check --deploy`` about what may be lost.

``check --database default`` also looks at what waits in the table. Nothing else is connected to: what only a live
broker can say is ``manage.py taskkit doctor``'s.

Checks are registered under the tag ``django_taskkit``. Their ids are fixed, and each has a section in docs/checks.md.
"""

from __future__ import annotations

from django.core import checks

from django_taskkit.checks.registration import TAG, register

__all__ = ["TAG", "all_messages"]

register("own_settings:check_settings")
register("own_settings:check_app")
register("own_settings:check_queues")
register("task_options:check_tasks")
register("task_options:check_result_caches")
register("celery_settings:check_readable")
register("celery_settings:check_celery")
register("celery_settings:check_deployment", deploy=True)
register("waiting:check_waiting", checks.Tags.database)


def all_messages(*, deploy: bool = True) -> list[checks.CheckMessage]:
    """Return what the checks of this package say of the project, without what it has silenced; no database is asked.

    Args:
        deploy: also what ``check --deploy`` says; imports all task modules, as a worker does.
    """
    # Django 6.1 takes None for all databases, and none is to be asked here.
    found = checks.run_checks(tags=[TAG], include_deployment_checks=deploy, databases=[])
    return [message for message in found if not message.is_silenced()]
