import time

import pytest
from celery import group


@pytest.fixture
def app(station):
    """Messages are taken at once; the results' Redis refuses connections."""
    pytest.importorskip("redis")
    station.app.conf.result_backend = "redis://127.0.0.1:1"
    return station.app


def test_a_result_backend_that_is_away_does_not_keep_a_task_from_being_published(app, station, caplog):
    started = time.monotonic()
    for number in range(3):
        app.send_task("tests.any", (number,))

    assert station.waiting() == 3
    assert time.monotonic() - started < 5, "without the guard it takes 19 seconds, and ends in an error"
    assert caplog.text.count("can't be reached") == 1


def test_nor_a_group(app, station):
    @app.task(name="tests.add")
    def add(*numbers): ...

    started = time.monotonic()
    result = group(add.s(number) for number in range(3)).delay()

    assert len(result.results) == station.waiting() == 3
    assert time.monotonic() - started < 5


def test_who_waits_for_a_result_still_gets_the_error(app):
    app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 0}}
    result = app.send_task("tests.any")

    with pytest.raises((RuntimeError, ConnectionError, *app.backend.connection_errors)):
        result.get(timeout=2)
