"""Django's tasks on a station's broker, with results in the tables of the tests."""

import importlib

import pytest
from django.test import override_settings

BACKEND = "django_taskkit.backends.CeleryBackend"


@pytest.fixture
def tasks_on_celery(station):
    """``tasks_on_celery(outbox=True)``: ``TASKS`` for this test, and the module of its tasks."""
    from django_taskkit.backends import endings

    overrides = []

    def choose(queues=("default", "emails"), **options):
        override = override_settings(
            TASKS={"default": {"BACKEND": BACKEND, "QUEUES": list(queues), "OPTIONS": options}},
        )
        override.enable()
        overrides.append(override)
        return importlib.import_module("tests.backends.shop")

    yield choose
    for override in reversed(overrides):
        override.disable()
    endings.uninstall()


@pytest.fixture
def shop(tasks_on_celery):
    module = tasks_on_celery()
    module.ran.clear()
    return module


@pytest.fixture
def announced():
    """Names of Django's signals about tasks, with the state that they told of, in their order."""
    from django_taskkit.backends.interface import task_enqueued, task_finished, task_started

    heard = []
    signals = {"enqueued": task_enqueued, "started": task_started, "finished": task_finished}
    receivers = {
        name: lambda sender, task_result, name=name, **kwargs: heard.append((name, task_result.status.value, sender))
        for name in signals
    }
    for name, signal in signals.items():
        signal.connect(receivers[name])
    yield heard
    for name, signal in signals.items():
        signal.disconnect(receivers[name])
