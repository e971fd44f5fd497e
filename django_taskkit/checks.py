"""What ``manage.py check`` says about settings and tasks, and ``check --deploy`` about what may be lost.

``check --database default`` also looks at what waits in the table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from celery import Celery
from celery.app import app_or_default
from django.conf import settings
from django.core import checks
from django.db import DatabaseError, router, transaction
from django.urls import get_resolver

from django_taskkit import conf
from django_taskkit.base_tasks.options import problems, store_problems, unused
from django_taskkit.dlq import retention, spool_files
from django_taskkit.dlq.models import DeadLetter
from django_taskkit.dlq.project import has_app
from django_taskkit.exceptions import ConfigurationError
from django_taskkit.outbox.delays import VISIBILITY_TIMEOUT
from django_taskkit.worker.hold_checks import check_hold


@checks.register("django_taskkit")
def check_settings(**kwargs: Any) -> list[checks.CheckMessage]:
    """taskkit.E001: ``TASKKIT`` has an unknown key or a value that makes no sense."""
    return [
        checks.Error(problem, hint="Correct it, or take it out: every setting has a default.", id="taskkit.E001")
        for problem in conf.problems(getattr(settings, "TASKKIT", {}))
    ]


@checks.register("django_taskkit")
def check_app(**kwargs: Any) -> list[checks.CheckMessage]:
    """taskkit.W005: this process does not have the project's Celery app, so nothing that it sends would arrive."""
    if has_app():
        return []
    return [
        checks.Warning(
            "No Celery app is loaded: what this process sends would not reach the project's broker.",
            hint="Import the app in the __init__.py beside it: from .celery import app as celery_app",
            id="taskkit.W005",
        )
    ]


@checks.register("django_taskkit")
def check_result_caches(**kwargs: Any) -> list[checks.CheckMessage]:
    """taskkit.E007, W012 and W013: of each ``ResultCache``, if the project has any."""
    if not has_app():
        return []
    _import_views()
    if "django_taskkit.results.cache" not in sys.modules:
        return []
    from django_taskkit.results.checks import check_results

    return check_results()


@checks.register("django_taskkit")
def check_queues(**kwargs: Any) -> list[checks.CheckMessage]:
    """taskkit.E003 and E004: who else takes messages from the queues of ``SPOOL_QUEUE`` and ``INTAKE_QUEUES``."""
    if not has_app():
        return []
    try:
        taskkit = conf.current()
    except ConfigurationError:
        return []  # E001 says why
    found = []
    if taskkit.spool_queue and taskkit.spool_queue in taskkit.intake_queues:
        found.append(
            checks.Error(
                f"{taskkit.spool_queue!r} is TASKKIT['SPOOL_QUEUE'] and one of TASKKIT['INTAKE_QUEUES'] as well.",
                hint="Take it out of INTAKE_QUEUES; dead letters in the spool would become dead letters of themselves.",
                id="taskkit.E003",
            )
        )
    consumed = _consumed_queues(app_or_default())
    found += [
        checks.Error(
            f"Workers read the queue {name!r}, which TASKKIT[{setting!r}] names.",
            hint="Take it out of task_queues and task_default_queue: the relay alone may read it. A worker takes what "
            "is there for tasks; a task that is rejected would run once more.",
            id="taskkit.E004",
        )
        for setting, names in (("SPOOL_QUEUE", [taskkit.spool_queue]), ("INTAKE_QUEUES", taskkit.intake_queues))
        for name in names
        if name in consumed
    ]
    return list(found)


def _consumed_queues(app: Celery) -> set[str]:
    """Return the queues that a worker reads which is started without ``-Q``."""
    queues: Mapping[str, Any] | Iterable[Any] = app.conf.task_queues or ()
    names = {getattr(queue, "name", queue) for queue in queues}
    return names or {app.conf.task_default_queue}


@checks.register("django_taskkit")
def check_tasks(**kwargs: Any) -> list[checks.CheckMessage]:
    """taskkit.E002, E006: options of a task, or the store they need, make no sense; W007, W008: holding won't work.

    Tasks are checked whose modules have been imported.
    """
    if not has_app():
        return []  # and asking for one would make Celery's own the default
    app = app_or_default()
    wrong = [checks.Error(complaint, obj=name, id="taskkit.E002") for name, complaint in problems(app)]
    return [*wrong, *_check_store(app, unusable=True), *check_hold(app)]


def _check_store(app: Celery, *, unusable: bool) -> list[checks.CheckMessage]:
    """taskkit.E006: ``SHARED_STORE`` is nothing that tasks could share; W010: other processes don't see it."""
    try:
        found = [problem for problem in store_problems(app) if problem.unusable is unusable]
    except ConfigurationError:
        return []  # E001 says why
    if unusable:
        return [checks.Error(problem.text, hint=problem.hint, id="taskkit.E006") for problem in found]
    return [checks.Warning(problem.text, hint=problem.hint, id="taskkit.W010") for problem in found]


@checks.register("django_taskkit", checks.Tags.database)
def check_waiting(databases: Sequence[str] | None = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """taskkit.W009: more dead letters wait than ``DEAD_WARN_COUNT``, or for longer than ``DEAD_WARN_AGE_DAYS``.

    Only for the databases that ``check`` or ``migrate`` name: others must not be asked.
    """
    using = router.db_for_read(DeadLetter)
    if using not in (databases or ()):
        return []
    try:
        with transaction.atomic(using=using):
            found = retention.warnings()
    except (DatabaseError, ConfigurationError):
        return []  # no table yet, as before the first migrate; Django and E001 say the rest
    return [checks.Warning(warned.text, hint=warned.hint, id="taskkit.W009") for warned in found]


@checks.register("django_taskkit", deploy=True)
def check_deployment(**kwargs: Any) -> list[checks.CheckMessage]:
    """taskkit.E002, E006, W007, W008 for tasks in modules that nothing has imported; E005, W001-W004, W006, W010, W011.

    Nothing is connected to, and nothing is made.

    Only with ``check --deploy``: a task module that asks the database when it is imported must not break ``migrate``.
    """
    if not has_app():
        return []
    app = app_or_default()
    known, known_of_store, known_of_hold = set(problems(app)), _check_store(app, unusable=True), check_hold(app)
    app.loader.import_default_modules()  # a worker imports them all
    late: list[checks.CheckMessage] = [
        checks.Error(complaint, obj=name, id="taskkit.E002")
        for name, complaint in problems(app)
        if (name, complaint) not in known
    ]
    if not known_of_store:
        late += [*_check_store(app, unusable=True), *_check_store(app, unusable=False)]
    late += [message for message in check_hold(app) if message not in known_of_hold]
    return [*late, *_check_unused(app), *_check_acknowledgement(app), *_check_broker(app), *_check_spool()]


def _check_unused(app: Celery) -> list[checks.Warning]:
    """taskkit.W011: an option of BaseTaskWithRetry is set on a task that is none."""
    return [
        checks.Warning(
            f"Its option {option} does nothing.",
            hint="Give it base=BaseTaskWithRetry, whose option that is; silence taskkit.W011 if it is somebody else's.",
            obj=name,
            id="taskkit.W011",
        )
        for name, option in unused(app)
    ]


def _check_acknowledgement(app: Celery) -> list[checks.Warning]:
    """taskkit.W001: a task is acknowledged before it runs, so that a worker that is killed takes it along."""
    return [
        checks.Warning(
            "Its message is acknowledged before it runs: a worker that is killed as a whole takes it along.",
            hint="Make the task safe to run twice and set acks_late=True, or base it on DeadLetterTask or "
            "BaseTaskWithRetry, which do. If it must not run twice, silence taskkit.W001.",
            obj=name,
            id="taskkit.W001",
        )
        for name, task in _own_tasks(app)
        if not task.acks_late
    ]


def _own_tasks(app: Celery) -> list[tuple[str, Any]]:
    """Return the project's tasks by name, without those of Celery and of this package."""
    return [(name, task) for name, task in sorted(app.tasks.items()) if not name.startswith(("celery.", "taskkit."))]


def _check_broker(app: Celery) -> list[checks.CheckMessage]:
    """taskkit.E005, and W002 to W004: how the broker is used can lose messages, or run them twice."""
    options = app.conf.broker_transport_options or {}
    found: list[checks.CheckMessage] = []
    reads, writes = _transport(app.connection_for_read, found), _transport(app.connection_for_write, found)
    if reads is not None and reads.driver_type == "redis":
        if not _is_ours(reads):
            found.append(
                checks.Warning(
                    "Celery fetches from Redis in two steps: a worker killed between them takes a message along.",
                    hint='Set CELERY_BROKER_TRANSPORT = "django_taskkit.transports.redis:Transport" in the settings; '
                    "without the prefix CELERY_, its name is broker_transport.",
                    id="taskkit.W002",
                )
            )
        found += _check_visibility(app, float(options.get("visibility_timeout") or VISIBILITY_TIMEOUT["redis"]))
    if writes is not None and writes.driver_type == "amqp" and options.get("confirm_publish", True) is False:
        found.append(
            checks.Warning(
                "confirm_publish is off: RabbitMQ reports success for messages that never arrive.",
                hint="Remove confirm_publish from broker_transport_options; django-taskkit turns it on.",
                id="taskkit.W004",
            )
        )
    return found


def _check_visibility(app: Celery, visible: float) -> list[checks.CheckMessage]:
    """taskkit.W003, for each task with such a limit of its own, and once for the setting that others have theirs of."""
    beyond = (
        f"is beyond Redis' visibility_timeout of {visible:g} s: another worker gets the message while it still runs."
    )
    hint = "Raise visibility_timeout in broker_transport_options above the longest time limit, or lower the limit."
    common = app.conf.task_time_limit
    limits = [(name, task.time_limit or common) for name, task in _own_tasks(app) if task.acks_late]
    too_long = [(name, limit) for name, limit in limits if limit and limit >= visible]
    found: list[checks.CheckMessage] = []
    if any(limit == common for _, limit in too_long):
        found.append(checks.Warning(f"The task_time_limit of {common} s {beyond}", hint=hint, id="taskkit.W003"))
    found += [
        checks.Warning(f"Its time_limit of {limit} s {beyond}", hint=hint, obj=name, id="taskkit.W003")
        for name, limit in too_long
        if limit != common
    ]
    return found


def _check_spool() -> list[checks.CheckMessage]:
    """taskkit.W006: dead letters could not be kept while neither database nor broker takes them."""
    try:
        problem = spool_files.problem()
    except ConfigurationError:
        return []  # E001 says why
    if not problem:
        return []
    return [
        checks.Warning(
            f"While neither database nor broker takes them, dead letters can't be kept on this machine: {problem}.",
            hint="Name a folder in TASKKIT['SPOOL_DIR'] that the user of workers and relay may make and write.",
            id="taskkit.W006",
        )
    ]


def _import_views() -> None:
    """What views declare is not there before; the commands that check import them anyway."""
    if getattr(settings, "ROOT_URLCONF", None):
        with suppress(Exception):  # which Django's own checks tell
            _ = get_resolver().url_patterns


def _transport(connection: Callable[[], Any], found: list[checks.CheckMessage]) -> Any:
    """Return the class of the transport; None, and taskkit.E005 in ``found``, if it can't be loaded."""
    try:
        return connection().get_transport_cls()
    except Exception as exc:
        problem = checks.Error(
            f"The broker's transport can't be loaded: {type(exc).__name__}: {exc}",
            hint="Correct CELERY_BROKER_TRANSPORT (broker_transport), or the beginning of CELERY_BROKER_URL "
            "(broker_url). If a library is missing: pip install 'django-taskkit[redis]', or [amqp] for RabbitMQ.",
            id="taskkit.E005",
        )
        if problem not in found:
            found.append(problem)
        return None


def _is_ours(transport: type) -> bool:
    return any(base.__module__.startswith("django_taskkit.") for base in transport.__mro__)
