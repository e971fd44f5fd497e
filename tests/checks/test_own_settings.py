"""manage.py check names what is wrong in TASKKIT before a worker meets it."""

import pytest
from celery import _state
from django.core.management import CommandError, call_command
from kombu import Queue

from tests.checks.asking import deployment, messages


def test_a_project_that_is_right_hears_nothing(station):
    assert messages() == []


def test_e001_a_setting_that_is_not_one(station, settings):
    settings.TASKKIT = {"RELAESE": "1", "CAPTURE": "none"}

    assert [message.id for message in messages()] == ["taskkit.E001", "taskkit.E001"]
    assert "did you mean 'RELEASE'?" in messages()[0].msg
    assert "docs/" not in messages()[0].hint
    with pytest.raises(CommandError, match="did you mean 'RELEASE'"):
        call_command("check")


def test_e003_a_spool_that_is_an_intake_queue_as_well(station, settings):
    settings.TASKKIT = {"SPOOL_QUEUE": "spool", "INTAKE_QUEUES": ["dead", "spool"]}

    [message] = messages()
    assert (message.id, message.is_serious()) == ("taskkit.E003", True)
    assert "'spool' is TASKKIT['SPOOL_QUEUE']" in message.msg
    assert "INTAKE_QUEUES" in message.hint


@pytest.mark.parametrize(
    "queues",
    [{"task_queues": [Queue("orders"), Queue("dead")]}, {"task_queues": {"dead": {}}}, {"task_default_queue": "dead"}],
)
@pytest.mark.parametrize("taskkit", [{"SPOOL_QUEUE": "dead"}, {"INTAKE_QUEUES": ["dead"]}])
def test_e004_a_queue_of_ours_that_workers_read(station, settings, queues, taskkit):
    settings.TASKKIT = taskkit
    station.app.conf.update(queues)

    [message] = messages()
    assert (message.id, message.is_serious()) == ("taskkit.E004", True)
    assert message.msg == f"Workers read the queue 'dead', which TASKKIT[{next(iter(taskkit))!r}] names."
    assert "task_queues" in message.hint


def test_e004_not_for_the_default_queue_where_task_queues_says_what_is_read(station, settings):
    settings.TASKKIT = {"INTAKE_QUEUES": ["dead"]}
    station.app.conf.update(task_default_queue="dead", task_queues=[Queue("orders")])

    assert messages() == []


def test_nothing_is_said_of_queues_while_the_setting_makes_no_sense(station, settings):
    settings.TASKKIT = {"INTAKE_QUEUES": "dead"}

    assert [message.id for message in messages()] == ["taskkit.E001"]


def test_w005_a_process_without_the_projects_app(no_app):
    [message] = messages()

    assert message.id == "taskkit.W005"
    assert "from .celery import app" in message.hint
    assert _state.default_app is None, "Celery would not let the project's app be the default any more"


def test_w006_a_spool_whose_folder_cant_be_made(station, settings, tmp_path):
    (tmp_path / "file").touch()
    for name, wrong in (("made/later", False), ("file", True), ("file/spool", True)):
        settings.TASKKIT = {"SPOOL_DIR": str(tmp_path / name)}

        found = deployment("taskkit.W006")

        assert [str(tmp_path / name) in message.msg for message in found] == [True] * wrong
    assert "SPOOL_DIR" in found[0].hint
    assert not (tmp_path / "made").exists()


def test_w006_a_spool_whose_folder_anybody_may_write(station, settings, tmp_path):
    tmp_path.chmod(0o777)
    settings.TASKKIT = {"SPOOL_DIR": str(tmp_path)}

    assert [message.id for message in deployment("taskkit.W006")] == ["taskkit.W006"]
