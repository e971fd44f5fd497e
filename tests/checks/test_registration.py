"""Whatever a configuration is like, a check says something, and raises nothing."""

import subprocess
import sys

import pytest
from django.core import checks
from django.core.management import CommandError, call_command

from django_taskkit.checks import TAG, all_messages
from django_taskkit.checks.registration import all_of
from tests.checks.asking import deployment, ids, messages


def test_e010_settings_that_can_not_be_read(configured, module):
    configured("tests.no_such_module")

    [message] = messages()

    assert (message.id, message.is_serious()) == ("taskkit.E010", True)
    assert "tests.no_such_module" in message.msg or "no_such_module" in message.msg
    with pytest.raises(CommandError, match="no_such_module"):
        call_command("check")


def test_e010_old_names_beside_new_ones(configured, module):
    configured({"task_acks_late": True, "result_expires": 60, "CELERY_ALWAYS_EAGER": True}, None)

    assert set(ids()) == {"E010"}
    assert "CELERY_ALWAYS_EAGER" in messages()[0].msg


def test_e010_for_a_check_that_fails_and_the_others_go_on(station):
    def fails(app):
        raise ValueError("redis://:hunter2@host")

    def says(app):
        yield checks.Warning("It rains.", id="weather")

    failed, said = all_of((fails, says), station.app)

    assert (failed.id, said.id) == ("taskkit.E010", "weather")
    assert "ValueError" in failed.msg
    assert "hunter2" not in failed.msg


def test_a_module_that_can_not_be_imported_is_told_before_deployment(station):
    def import_default_modules():
        raise ImportError("No module named 'orders.taks'")

    station.app.loader.import_default_modules = import_default_modules

    [message] = deployment("taskkit.E010")

    assert "orders.taks" in message.msg


NONSENSE = (None, "", "x", -1, 0, 3.5, True, [], {}, [None], {"x": None}, object(), {1: 2}, lambda: None, b"x", "a:b")
KEYS = (
    *("accept_content", "beat_schedule", "beat_scheduler", "broker_transport_options", "broker_url", "broker_use_ssl"),
    *("redis_backend_use_ssl", "result_accept_content", "result_backend", "result_backend_max_retries"),
    *("result_expires", "result_serializer", "task_annotations", "task_default_priority", "task_default_queue"),
    *("task_queues", "task_routes", "task_serializer", "task_soft_time_limit", "task_time_limit", "timezone"),
    *("worker_eta_task_limit", "worker_pool", "worker_prefetch_multiplier", "worker_soft_shutdown_timeout"),
)


@pytest.mark.parametrize("key", KEYS)
def test_no_value_makes_a_check_raise(station, late, key):
    late("long", time_limit=7200, priority=3)
    for value in NONSENSE:
        station.app.conf.broker_url = "amqp://127.0.0.1:1//"
        station.app.conf[key] = value

        unexplained = [message.msg for message in all_messages() if message.id == "taskkit.E010"]
        assert unexplained == [], repr(value)
        station.app.conf.changes.pop(key)


def test_they_are_found_by_their_tag(station):
    station.app.conf.update(broker_url="redis://127.0.0.1:1/0", task_ack_late=True)

    plain, deploy = ({message.id for message in all_messages(deploy=deploy)} for deploy in (False, True))

    assert plain == {"taskkit.E011"}
    assert {"taskkit.E011", "taskkit.W002"} <= deploy
    assert deploy == {
        message.id for message in checks.run_checks(tags=[TAG], include_deployment_checks=True, databases=[])
    }


def test_what_the_project_has_silenced_is_left_out(station, settings):
    settings.SILENCED_SYSTEM_CHECKS = ["taskkit.E011"]
    station.app.conf.task_ack_late = True

    assert all_messages(deploy=False) == []


def test_importing_the_app_imports_no_check():
    code = (
        "import os, sys, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'; django.setup();"
        "print(*(name for name in sys.modules if name.startswith('django_taskkit.checks')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert sorted(done.stdout.split()) == ["django_taskkit.checks", "django_taskkit.checks.registration"]
