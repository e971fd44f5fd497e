"""Where holding can't work, or not for long, manage.py check says so."""

from datetime import timedelta

import pytest
from celery import __version__ as celery_version

from django_taskkit.worker.hold_checks import check_hold

HAS_CHORD_EXPIRES = tuple(map(int, celery_version.split(".")[:2])) >= (5, 7)


@pytest.fixture
def check(station, settings):
    """What is said with a result backend and settings of Celery."""

    def check(backend="redis://127.0.0.1:1/0", hold_workflows=True, **conf):
        settings.TASKKIT = {"HOLD_WORKFLOWS": hold_workflows}
        station.app.conf.update(result_backend=backend, **conf)
        return [(message.id.removeprefix("taskkit."), message.msg, message.hint) for message in check_hold(station.app)]

    return check


def test_nothing_where_nothing_is_held(check):
    assert check(hold_workflows=False, backend=None) == []


def test_nothing_where_it_works(check):
    assert check(result_expires=timedelta(days=30)) == []
    assert check(result_expires=0) == []


def test_w007_without_a_result_backend(check):
    [(number, text, hint)] = check(backend=None)

    assert number == "W007"
    assert "there is no result backend" in text
    assert "CELERY_RESULT_BACKEND" in hint


def test_w007_for_a_single_task_as_well(station, check):
    @station.app.task(hold=True)
    def fetch(): ...

    assert [number for number, *_ in check(backend=None, hold_workflows=False)] == ["W007"]


def test_w007_of_a_backend_without_chords(check):
    [(number, text, _hint)] = check(backend="rpc://")

    assert number == "W007"
    assert "RPCBackend has no chords" in text


def test_w007_of_a_task_whose_failures_are_not_captured(station, check):
    @station.app.task(hold=True, dead_letter=False, name="fetch")
    def fetch(): ...

    [(number, text, _hint)] = check(result_expires=0)

    assert (number, "never held" in text) == ("W007", True)


def test_w008_where_chords_are_forgotten_too_soon(check):
    [(number, text, hint)] = check()

    assert number == "W008"
    assert "after 1 day, 0:00:00" in text
    name = "result_chord_expires" if HAS_CHORD_EXPIRES else "result_expires"
    assert f"CELERY_{name.upper()} ({name})" in hint


@pytest.mark.skipif(not HAS_CHORD_EXPIRES, reason="new in Celery 5.7")
def test_w008_looks_at_chords_alone_where_they_have_a_setting(check):
    assert check(result_chord_expires=0) == []


def test_w008_in_a_database_of_results(tables_of_results, check):
    [(number, _text, hint)] = check(backend="django-db")

    assert number == "W008"
    assert "CELERY_RESULT_EXPIRES" in hint


def test_a_wrong_setting_is_said_elsewhere(check, settings, station):
    check(backend=None)
    settings.TASKKIT = {"HOLD_WORKFLOW": True}

    assert check_hold(station.app) == []
