"""Tasks of Django's, as a project has them; imported where TASKS names our backend."""

from pathlib import Path

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task

from django_taskkit.base_tasks import Retryable, Snooze

ran = []
meanwhile = []
"""Functions that a run calls."""


@task
def add(*numbers):
    ran.append(numbers)
    return sum(numbers)


@task(priority=50, queue_name="emails")
def send(address, *, subject="", labels=()):
    ran.append(address)
    return [address, subject, labels]


@task
def take_long():
    while meanwhile:
        meanwhile.pop()()
    return "long"


@task
async def fetch(url):
    return f"fetched {url}"


@task(takes_context=True)
def attempt(context, name):
    return [name, context.attempt, context.task_result.id, str(context.task_result.status)]


@task
def fail_while(path):
    """Fails as long as the file is there."""
    ran.append(path)
    if Path(path).exists():
        raise ValueError("the file is there")
    return "done"


@task(takes_context=True)
def retry_once(context):
    if context.attempt == 1:
        raise Retryable("not yet", delay=1)
    return context.attempt


@task(takes_context=True)
def snooze_once(context):
    if context.attempt == 1:
        raise Snooze(1)
    return context.attempt


@task
def unserialisable():
    ran.append("unserialisable")
    return object()


class OutOfStockError(Exception):
    pass


@task
def run_out():
    raise OutOfStockError("none left")
