"""What ``TASKS`` may say, and what is installed where it says nothing."""

import subprocess
import sys

import pytest
from django.test import override_settings
from kombu import Queue

WITHOUT = """
import sys
class NoTasks:
    def find_spec(self, name, path=None, target=None):
        if name in ("django.tasks", "django_tasks"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoTasks())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("django.tasks", "django_tasks") else found(name, *rest)
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_taskkit"],
    TASKS={"default": {"BACKEND": "django_taskkit.backends.CeleryBackend"}},
)
django.setup()
import django_taskkit.backends
from django_taskkit.models import DjangoTaskResult
try:
    django_taskkit.backends.CeleryBackend
except ImportError as exc:
    print(exc)
"""


def test_where_there_are_no_tasks_all_else_works_and_the_backend_says_what_it_needs():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)

    assert "pip install django-tasks" in done.stdout


def test_a_name_that_the_package_does_not_have_is_an_attribute_error():
    from django_taskkit import backends

    with pytest.raises(AttributeError, match="RedisBackend"):
        backends.RedisBackend  # noqa: B018


class TestTheBackend:
    @pytest.fixture(autouse=True)
    def interface(self):
        return pytest.importorskip("django_taskkit.backends.interface", exc_type=ImportError)

    def test_can_do_all_that_there_is(self, shop, interface):
        backend = interface.task_backends["default"]

        assert backend.supports_defer
        assert backend.supports_async_task
        assert backend.supports_get_result
        assert backend.supports_priority

    def test_has_no_priorities_where_the_broker_has_none(self, shop, station, interface):
        station.app.conf.broker_url = "sqs://"

        with pytest.raises(interface.InvalidTask, match="priority"):
            shop.add.using(priority=3)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"outbux": True}, "did you mean 'outbox'"),
            ({"workers": 3}, "the options are"),
            ({"store": "celery"}, "'db'"),
            ({"outbox": 1}, "True or False or None"),
            ({"on_commit": None}, "True or False"),
        ],
    )
    def test_refuses_options_that_make_no_sense(self, interface, options, said):
        tasks = {"default": {"BACKEND": "django_taskkit.backends.CeleryBackend", "OPTIONS": options}}

        with override_settings(TASKS=tasks), pytest.raises(interface.InvalidTaskBackend, match=said):
            interface.task_backends["default"]

    def test_names_queues_that_celery_does_not_have_and_may_not_make(self, shop, station, interface):
        backend = interface.task_backends["default"]
        assert backend.check() == []

        station.app.conf.update(task_create_missing_queues=False, task_queues=[Queue("orders")])

        (error,) = backend.check()
        assert error.id == "taskkit.E033"
        assert "'emails'" in error.msg
        station.app.conf.task_queues = [Queue("emails")]
        assert backend.check() == []

    def test_is_not_asked_for_an_app_that_is_not_there(self, shop, interface, no_app):
        assert interface.task_backends["default"].check() == []
        assert interface.task_backends["default"].supports_priority


class TestInstalling:
    @pytest.fixture
    def is_listening(self):
        pytest.importorskip("django_taskkit.backends.interface", exc_type=ImportError)
        from django_taskkit.backends import endings
        from django_taskkit.signals import task_dead_lettered

        yield lambda: any(key[0] == endings.UID for key, *_ in task_dead_lettered.receivers)
        endings.uninstall()

    @pytest.mark.parametrize(
        ("tasks", "listens"),
        [
            ({}, False),
            ({"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}, False),
            ({"default": {"BACKEND": "no.such.Backend"}}, False),
            ({"default": {"BACKEND": "collections.OrderedDict"}}, False),
            ({"default": {}}, False),
            ({"other": {"BACKEND": "django_taskkit.backends.CeleryBackend"}}, True),
            ({"other": {"BACKEND": "tests.backends.own_backend.OwnBackend"}}, True),
        ],
    )
    def test_listens_for_deaths_where_our_backend_is_chosen(self, is_listening, tasks, listens):
        from django_taskkit.backends import hooks

        with override_settings(TASKS=tasks):
            hooks.install()

        assert is_listening() is listens
