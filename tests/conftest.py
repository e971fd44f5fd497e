"""Fixtures for tests without services: Celery's real message path over kombu's in-memory broker."""

import inspect
import itertools
import os
import pickle
import sys
import time
from pathlib import Path

import pytest
from billiard.einfo import ExceptionInfo
from billiard.pool import ApplyResult, Pool, TimeoutHandler
from celery import _state, signals
from celery.concurrency.prefork import TaskPool
from celery.contrib.django.task import DjangoTask
from celery.exceptions import TaskRevokedError
from celery.utils.imports import symbol_by_name
from celery.worker import state as worker_state
from celery.worker import strategy
from django.contrib import admin
from django.core.management import call_command
from django.test import override_settings

from tests.own_apps import OwnTasks, current_app_kept

_names = itertools.count()

FAILURES = "TASKKIT_TEST_FAILURES"
"""The variable that names the file for what failed; `make test` prints it after a dozen environments."""


def pytest_terminal_summary(terminalreporter, config):
    path = os.environ.get(FAILURES)
    if path and not hasattr(config, "workerinput"):  # a worker of pytest-xdist reports to the process that started it
        environment = os.environ.get("TOX_ENV_NAME", "")
        with Path(path).open("a") as file:
            for outcome, word in (("failed", "FAILED"), ("error", "ERROR"), ("rerun", "RUN AGAIN")):
                for report in terminalreporter.stats.get(outcome, ()):
                    crash = getattr(report.longrepr, "reprcrash", None)
                    cause = (crash.message if crash else str(report.longrepr)).strip().splitlines()
                    print(f"{word} {environment}: {report.nodeid}: {cause[0] if cause else ''}"[:400], file=file)


class Step:
    """What became of one message that was run."""

    def __init__(self, message, request, failed, result):
        self.message = message
        self.request = request
        self.failed = failed
        self.result = result


class Job:
    """One task in a pool process: billiard's own job, whose process is the test."""

    def __init__(self, target, args, **options):
        self.target = target
        self.args = args
        # What a callback raises would end or disturb a real worker's loop; here it fails the test.
        self.applied = ApplyResult({}, callbacks_propagate=(Exception,), **options)

    def accept(self, pid=4242):
        """Take the job, as a process does before anything else."""
        self.applied._ack(None, time.monotonic(), pid, None)
        return self

    def run(self):
        """Run the task and report what came of it, over the pipe; returns that."""
        self.accept()
        try:
            result = (True, self.target(*self.args))
        except BaseException:  # as billiard's Worker.workloop
            result = (False, ExceptionInfo())
        result = pickle.loads(pickle.dumps(result))
        self.applied._set(0, result)
        return result

    def lose(self, exitcode=-9):
        """Die without a word."""
        Pool.mark_as_worker_lost(None, self.applied, exitcode)

    def terminated(self, signum=15):
        """Die of the signal that the worker sent."""
        self.applied._set_terminated(signum)

    def exceed_hard_limit(self):
        TimeoutHandler([], {}, None, None).on_hard_timeout(self.applied)

    def report(self, exc):
        """Report ``exc`` from outside the tracer."""
        try:
            raise exc  # noqa: TRY301 (billiard reads what is being handled)
        except BaseException:
            self.applied._set(0, (False, pickle.loads(pickle.dumps(ExceptionInfo()))))


class PoolByHand(TaskPool):
    """Celery's prefork pool, with the test in the place of its processes."""

    def __init__(self, app):
        super().__init__(limit=1, app=app)
        self.jobs = []
        self.killed = []

    def on_apply(self, target, args=(), kwargs=None, **options):
        known = ("callback", "accept_callback", "timeout_callback", "error_callback", "soft_timeout", "timeout")
        job = Job(target, args, **{name: options[name] for name in known})
        self.jobs.append(job)
        return job.applied

    def terminate_job(self, pid, signal=None):
        self.killed.append((pid, signal))


class Station:
    """A Celery app with a queue of its own, and the worker's message path one message at a time.

    The message is really published and received, goes through the request that a worker makes and Celery's tracer,
    and is acknowledged as Celery would; only the loop around it is missing.
    """

    def __init__(self, app):
        self.app = app
        self.queue = app.conf.task_default_queue
        self.pool = PoolByHand(app)
        self._connection = app.connection_for_read()
        self._channel = self._connection.channel()

    def take(self):
        queue = self.app.amqp.queues[self.queue](self._channel)
        queue.declare()
        return queue.get(accept={"application/json", "application/x-python-serialize"})

    def waiting(self):
        return self._channel._size(self.queue)

    def run_next(self):
        """Run the next message of the queue; None if there is none."""
        message = self.take()
        return None if message is None else self.run(message)

    def request(self, message, headers=None, pool=None, hostname=None, **options):
        """Return the request that a worker makes of ``message``, received but not started."""
        task = self.app.tasks[(headers or message.headers)["task"]]
        made = strategy.create_request_cls(
            symbol_by_name(task.Request), task, pool or self.pool, hostname, None, app=self.app
        )
        request = made(
            message,
            **{
                "app": self.app,
                "task": task,
                "hostname": hostname,
                "headers": headers,
                "on_ack": message.ack_log_error,
                "on_reject": message.reject_log_error,
                "connection_errors": (OSError,),
                **options,
            },
        )
        signals.task_received.send(sender=None, request=request)
        worker_state.task_reserved(request)
        return request

    def run(self, message, headers=None, **options):
        request = self.request(message, headers, **options)
        try:
            request.execute_using_pool(self.pool)
        except TaskRevokedError:
            return Step(message, request, None, None)
        reported, value = self.pool.jobs.pop().run()
        failed, result, _runtime = value if reported else (1, value, None)
        return Step(message, request, failed, result)

    def run_all(self, limit=50):
        """Run until the queue is empty; return how many messages that took."""
        for count in range(limit):
            if self.run_next() is None:
                return count
        raise AssertionError(f"the queue still has messages after {limit} runs")

    def close(self):
        self._connection.release()


@pytest.fixture(autouse=True)
def path_kept():
    """Celery puts the current folder on the path with each app that is made, and every import would look there."""
    before = sys.path[:]
    yield
    sys.path[:] = before


@pytest.fixture(autouse=True)
def no_outage_before():
    """An outage that one test makes keeps the recorder away from database and broker for some seconds."""
    from django_taskkit.dlq import recorder, spool

    recorder.database_pause.end()
    spool.broker_pause.end()


def _is_shared_by_a_test(finalizer):
    """Whether Celery's note of a shared task is of one that neither Celery nor the package has."""
    function = inspect.getclosurevars(finalizer).nonlocals.get("fun", finalizer)
    return function.__module__.partition(".")[0] not in ("celery", "django_taskkit")


@pytest.fixture
def without_shared_tasks():
    """Celery would give every app the tasks that tests share, and those of the apps of live tests."""
    known = _state._on_app_finalizers
    of_tests = {finalizer for finalizer in known if _is_shared_by_a_test(finalizer)}
    known -= of_tests
    yield
    known -= {finalizer for finalizer in known if _is_shared_by_a_test(finalizer)}
    known |= of_tests


@pytest.fixture
def station(without_shared_tasks):
    """A fresh Celery app on the in-memory broker, as the current app, with its own queue."""
    with current_app_kept():
        app = OwnTasks("station", set_as_current=True, task_cls=DjangoTask)
        app.conf.update(
            broker_url="memory://",
            result_backend="cache+memory://",
            task_default_queue=f"station-{next(_names)}",
            accept_content=["json", "pickle"],
            task_publish_retry=False,
        )
        app.set_default()  # for other threads, such as a live server's
        station = Station(app)
        yield station
        station.close()
        if cached := sys.modules.get("django_taskkit.results.cache"):
            cached._declared.clear()  # of this app; the checks would look at them
        worker_state.reset_state()
        _state._set_task_join_will_block(False)  # what a worker that was built in this process has left


@pytest.fixture
def task(station):
    """Register a task that is looked at, and never run."""
    from django_taskkit.base_tasks import BaseTaskWithRetry

    def task(name="orders.tasks.send", base=BaseTaskWithRetry, **options):
        @station.app.task(name=name, base=base, **options)
        def nothing(): ...

        return nothing

    return task


@pytest.fixture
def no_app():
    """A process that has not imported the project's Celery app; what Celery makes in its place is taken away again."""
    before, default = _state._tls.current_app, _state.default_app
    _state._set_current_app(None)
    _state.set_default_app(None)
    yield
    _state._set_current_app(before)
    _state.set_default_app(default)


@pytest.fixture(scope="module")
def tables_of_results(django_db_setup, django_db_blocker):
    """django-celery-results as an app of this project, with its tables."""
    pytest.importorskip("django_celery_results")
    from django.conf import settings

    with override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS, "django_celery_results"]):
        with django_db_blocker.unblock():
            call_command("migrate", "django_celery_results", verbosity=0)
        yield
        with django_db_blocker.unblock():
            call_command("migrate", "django_celery_results", "zero", verbosity=0)
        # Its admin was imported; to the tests that follow, its models are those of no app.
        for model in [model for model in admin.site._registry if model._meta.app_label == "django_celery_results"]:
            admin.site.unregister(model)
