"""manage.py check names what is wrong before a worker meets it."""

import pytest
from django.core import checks
from django.core.management import CommandError, call_command

from django_taskkit.base_tasks import BaseTaskWithRetry


def messages():
    return [message for message in checks.run_checks() if message.id.startswith("taskkit.")]


def test_a_project_that_is_right_hears_nothing(station):
    assert messages() == []


def test_e001_a_setting_that_is_not_one(station, settings):
    settings.TASKKIT = {"RELAESE": "1", "CAPTURE": "none"}

    assert [message.id for message in messages()] == ["taskkit.E001", "taskkit.E001"]
    assert "did you mean 'RELEASE'?" in messages()[0].msg
    assert "docs/settings.md" in messages()[0].hint
    with pytest.raises(CommandError, match="did you mean 'RELEASE'"):
        call_command("check")


def test_e002_retry_options_that_make_no_sense(station):
    """They are not refused when the task is registered: that would keep others from being registered."""

    @station.app.task(base=BaseTaskWithRetry, name="fetch", max_retries=-1)
    def fetch(): ...

    [message] = messages()
    assert message.id == "taskkit.E002"
    assert message.msg.startswith("fetch: max_retries: -1 makes no sense")


def test_e002_before_deployment_also_for_tasks_that_nothing_has_imported_yet(station):
    def import_default_modules():
        @station.app.task(base=BaseTaskWithRetry, name="late", retry_jitter="equel")
        def late(): ...

    station.app.loader.import_default_modules = import_default_modules

    assert messages() == []
    found = [message for message in checks.run_checks(include_deployment_checks=True) if message.id == "taskkit.E002"]

    assert [message.obj for message in found] == ["late"]
