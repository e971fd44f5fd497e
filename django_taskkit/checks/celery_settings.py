"""Which checks of Celery's settings run when: certain mistakes always, advice for production with ``--deploy``."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app import app_or_default

from django_taskkit.checks import (
    acknowledgement,
    content,
    lanes,
    limits,
    names,
    own_settings,
    production,
    queues,
    result_backends,
    schedules,
    task_options,
    transports,
    values,
    workers,
)
from django_taskkit.checks.configuration import settings_of
from django_taskkit.checks.registration import Messages, OfApp, all_of, of_project, told
from django_taskkit.dlq.project import has_app

ALWAYS: tuple[OfApp, ...] = (
    names.unreadable,
    names.misspelt,
    values.kinds,
    limits.soft_not_below_hard,
    acknowledgement.given_back_for_ever,
    lanes.cannot_be_sent,
    queues.quorum,
    content.refused_by_our_own,
    result_backends.without_its_app,
    schedules.scheduler_without_its_app,
    schedules.malformed,
    production.eager_and_raising,
)
"""What every project should act on, on a desk too."""

DEPLOY: tuple[OfApp, ...] = (
    task_options.store_of_one_process,
    task_options.unused_options,
    task_options.acknowledged_early,
    transports.broker,
    own_settings.spool,
    names.strange,
    limits.none_at_all,
    limits.longer_than_the_broker_waits,
    limits.delays,
    limits.waits_behind_others,
    acknowledgement.dropped_when_they_fail,
    acknowledgement.runs_on_without_connection,
    acknowledgement.no_time_to_give_back,
    lanes.may_not_be_read,
    queues.made_when_misspelt,
    queues.quorum_that_drops,
    queues.priorities,
    workers.children_without_processes,
    workers.waiting_tasks_block_others,
    workers.root_logger,
    workers.at_start,
    workers.half_open_connections,
    workers.protocol,
    workers.events_of_sqs,
    result_backends.half_open_connections,
    result_backends.kept_for_ever,
    result_backends.retried_for_ever,
    content.pickle,
    content.certificates,
    schedules.unknown_tasks,
    schedules.two_clocks,
    production.eager,
    production.shared_with_a_cache,
)
"""What matters where messages do. Nothing is connected to, and nothing is made."""


def check_readable(**kwargs: Any) -> Messages:
    """taskkit.E010: Celery's settings can't be imported, or not be put together."""
    if has_app():
        settings_of(app_or_default())
    return []


@of_project
def check_celery(app: Celery) -> Messages:
    """taskkit.E011 to E020, E030 to E032, W021, W030, W032 and W048: mistakes in Celery's settings.

    And of tasks, as far as they have been imported.
    """
    return all_of(ALWAYS, app)


@of_project
def check_deployment(app: Celery) -> Messages:
    """The same, and taskkit.E002, E006, W007 and W008, for tasks in modules that nothing has imported; and ``DEPLOY``.

    Only with ``check --deploy``: a task module that asks the database when it is imported must not break ``migrate``.
    """
    always = (task_options.of_tasks, *ALWAYS)
    known = all_of(always, app)
    failed = told(_import_tasks, app)
    return [*failed, *(message for message in all_of((*always, *DEPLOY), app) if message not in known)]


def _import_tasks(app: Celery) -> Messages:
    """Import what a worker imports."""
    app.loader.import_default_modules()
    return []
