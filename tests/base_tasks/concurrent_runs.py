"""One task object, run many times at once by threads or greenlets, each run with a fate of its own.

Used by test_concurrency.py; as a program it does the same with gevent, which must patch the process first.
"""

import sys

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import itertools
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

from celery import Celery
from celery.app.trace import build_tracer
from celery.exceptions import Retry

AT_ONCE = 16
ROUNDS = 6

KINDS = ("os", "key", "value", "retryable", "snooze", "permanent", "by hand", "given up", "succeeds")


def expected(kind, number):
    """State of a run, and seconds until the next one, if there is one."""
    retries = number % 3
    return {
        "os": ("RETRY", 3 * 2**retries),
        "key": ("RETRY", 11 * 2**retries),
        "value": ("RETRY", 100 * 2**retries),
        "retryable": ("RETRY", 20 + number),
        "snooze": ("RETRY", 1000 + number),
        "permanent": ("FAILURE", None),
        "by hand": ("RETRY", 2000 + number),
        "given up": ("FAILURE", None),
        "succeeds": ("SUCCESS", None),
    }[kind]


def make(app, meet):
    """The task; ``meet`` returns when all runs that go on at once have come to the same place."""
    from django_taskkit.base_tasks import BaseTaskWithRetry, Permanent, Retryable, RetryPolicy, Snooze

    @app.task(
        base=BaseTaskWithRetry,
        bind=True,
        name="t.many",
        max_retries=4,
        retry_backoff=100,
        retry_backoff_max=100_000,
        retry_jitter=False,
        retry_policies={
            OSError: RetryPolicy(max_retries=9, backoff=3, jitter=False),
            KeyError: RetryPolicy(max_retries=9, backoff=11, jitter=False),
        },
    )
    def many(self, kind, number):
        mine = (self.request.id, self.request.retries)
        meet()
        try:
            if kind == "by hand":
                raise self.retry(countdown=2000 + number, max_retries=50)
            if kind == "given up":
                self.retry(exc=ValueError(number), max_retries=0)
            errors = {"os": OSError, "key": KeyError, "value": ValueError}
            if kind in errors:
                raise errors[kind](number)
            if kind == "retryable":
                raise Retryable(delay=20 + number)
            if kind == "snooze":
                raise Snooze(1000 + number)
            if kind == "permanent":
                raise Permanent(f"number {number}")
        finally:
            meet()
            assert mine == (self.request.id, self.request.retries)
        return number

    return many


class Many:
    """Runs of one task at once, by Celery's own tracer."""

    def __init__(self, app):
        self.barrier = threading.Barrier(AT_ONCE)
        self.task = make(app, lambda: self.barrier.wait(60))
        app.finalize()
        self.tracer = build_tracer(self.task.name, self.task, app=app)
        self.queue = app.conf.task_default_queue
        self.task._get_exec_options()  # found once, by Celery, for the first message of whichever run

    def run(self, kind, number):
        task_id = str(uuid.uuid4())
        retries = number % 3
        # Earlier retries were caused by the policy of the error that comes again.
        policy = {"os": "builtins.OSError", "key": "builtins.KeyError"}.get(kind)
        headers = {"taskkit_retries_by": {policy: retries}} if policy and retries else {}
        request = {
            "id": task_id,
            "task": self.task.name,
            "args": (kind, number),
            "kwargs": {},
            "retries": retries,
            "is_eager": False,
            "delivery_info": {"exchange": "", "routing_key": self.queue},
            "hostname": "here",
            "headers": headers,
            **headers,
        }
        retval, info, _runtime, _text = self.tracer(task_id, (kind, number), {}, request)
        delay = info.retval.when if info is not None and isinstance(info.retval, Retry) else None
        state = "SUCCESS" if info is None else info.state
        return kind, number, (state, delay), retval

    def all(self, executor):
        """Run everything; yield kind, number, outcome, and return value of each run."""
        calls = list(itertools.islice(((kind, n) for n in itertools.count() for kind in KINDS), AT_ONCE * ROUNDS))
        yield from executor(lambda call: self.run(*call), calls)


def app_for(name):
    app = Celery(name, set_as_current=True)
    app.conf.update(
        broker_url="memory://", result_backend="cache+memory://", task_default_queue=name, task_publish_retry=False
    )
    app.set_default()  # what a worker does for its threads
    return app


def with_threads(function, calls):
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(function, calls)


def with_greenlets(function, calls):
    from gevent.pool import Pool

    yield from Pool(AT_ONCE).map(function, calls)


def state_of(task):
    """All that is kept on the object that the runs share, and on its class."""
    return {**vars(type(task)), **vars(task)}


def main():
    """Run it with greenlets; print the number of runs and what was wrong."""
    import django
    from django.conf import settings

    settings.configure(
        INSTALLED_APPS=["django_taskkit"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        TASKKIT={"CAPTURE": "opt_in"},
    )
    django.setup()
    many = Many(app_for("greenlets"))
    many.task.dead_letter = False  # there is no table in this process
    warmed = many.task._body  # kept at the first run, whichever that is
    before, count, wrong = state_of(many.task), 0, []
    for kind, number, outcome, _ in many.all(with_greenlets):
        count += 1
        if outcome != expected(kind, number):
            wrong.append([kind, number, outcome, expected(kind, number)])
    after = state_of(many.task)
    changed = sorted(name for name in {*before, *after} if before.get(name) is not after.get(name))
    print(json.dumps({"runs": count, "wrong": wrong, "changed": changed, "body": warmed is many.task._body}))


if __name__ == "__main__":
    sys.exit(main())
