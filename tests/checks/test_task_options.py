"""manage.py check names the options of tasks that make no sense, before they are needed."""

import pytest
from django.core import checks

from django_taskkit.base_tasks import BaseTaskWithRetry, options
from django_taskkit.stores import visibility
from django_taskkit.worker import startup
from tests.checks.asking import deployment, messages


def test_e002_retry_options_that_make_no_sense(station):
    """They are not refused when the task is registered: that would keep others from being registered."""

    @station.app.task(base=BaseTaskWithRetry, name="fetch", max_retries=-1)
    def fetch(): ...

    [message] = messages()
    assert message.id == "taskkit.E002"
    assert message.msg.startswith("fetch: max_retries: -1 makes no sense")


def test_e002_before_deployment_also_for_tasks_that_nothing_has_imported_yet(station):
    def import_default_modules():
        if "late" in station.app.tasks:
            return

        @station.app.task(base=BaseTaskWithRetry, name="late", retry_jitter="equel")
        def late(): ...

    station.app.loader.import_default_modules = import_default_modules

    assert messages() == []
    found = [message for message in checks.run_checks(include_deployment_checks=True) if message.id == "taskkit.E002"]

    assert [message.obj for message in found] == ["late"]


def test_w001_before_deployment_tasks_that_a_killed_worker_takes_along(station):
    @station.app.task(name="early")
    def early(): ...

    @station.app.task(name="acknowledged late", acks_late=True)
    def late(): ...

    found = {message.obj: message.msg for message in deployment("taskkit.W001")}
    assert "killed as a whole" in found["early"]
    assert "acknowledged late" not in found
    assert messages() == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"retry_in": "soon"}, "retry_in: 'soon' makes no sense; give a function of 2 arguments"),
        ({"retry_in": lambda exc: 5}, "has to take 2 arguments"),
        ({"on_retries_exhausted": len}, "has to take 2 arguments"),
        ({"delivery_limit": "x"}, "delivery_limit: 'x' makes no sense; give a whole number"),
        ({"outbox": "maybe"}, "outbox: 'maybe' makes no sense; give True, False or None"),
        ({"unsafe_arguments": "yes"}, "unsafe_arguments: 'yes' makes no sense; give one of 'error', 'warn', 'allow'"),
    ],
)
def test_e002_options_that_would_fail_only_when_the_task_does(station, options, complaint):
    @station.app.task(base=BaseTaskWithRetry, name="fetch", **options)
    def fetch(): ...

    [message] = messages()

    assert message.id == "taskkit.E002"
    assert message.msg.startswith("fetch: ")
    assert complaint in message.msg


def test_w011_an_option_of_another_base_class(station):
    @station.app.task(name="pay", idempotency_key=("order",), acks_late=True)
    def pay(order): ...

    [message] = deployment("taskkit.W011")

    assert (message.obj, message.msg) == ("pay", "Its option idempotency_key does nothing.")


def uses_a_budget(station):
    @station.app.task(base=BaseTaskWithRetry, name="pay", retry_budget="bank")
    def pay(): ...


def test_the_store_is_looked_at_for_every_option_that_puts_a_gate_before_a_body():
    assert sorted(visibility.OPTIONS) == sorted(options.GATES)


def test_e006_a_store_that_keeps_nothing(station, settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    assert messages() == []
    uses_a_budget(station)

    [message] = messages()

    assert message.id == "taskkit.E006"
    assert "a DummyCache, which keeps nothing" in message.msg
    assert "pay" in message.hint
    assert "taskkit.W010" not in [found.id for found in checks.run_checks(include_deployment_checks=True)]
    with pytest.raises(SystemExit, match="DummyCache"):
        startup._refuse_bad_settings(instance=station)


def test_w010_a_store_that_other_processes_do_not_see(station, settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    uses_a_budget(station)

    assert messages() == []  # which is how one develops
    assert [message.id for message in deployment("taskkit.W010")] == ["taskkit.W010"]
