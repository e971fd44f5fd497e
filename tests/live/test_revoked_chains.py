"""A chain in a chord whose first step was revoked, or expired, fails the chord's body; in plain Celery it waits."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import harness
import pytest
from celery import chain, chord, signature

from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db(transaction=True)

LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)


@pytest.fixture(params=["redis", "django-db"])
def results(request, broker, tables_of_results, producer):
    """Where results are stored."""
    if request.param == "django-db":
        broker.settings["result_backend"] = "django-db"
        producer.conf.result_backend = "django-db"
    return request.param


@pytest.fixture
def start(broker, results, start_worker, django_env, tmp_path):
    env = {
        **django_env,
        "DJANGO_SETTINGS_MODULE": "chords_settings",
        "TASKKIT_TEST_CALLS": str(tmp_path / "calls"),
    }
    return lambda **options: start_worker("chords_app", broker, env=env, **options)


@pytest.fixture
def task(producer):
    return lambda name, *args, **options: signature(f"chords.{name}", args, options=options, app=producer)


def calls(tmp_path):
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


def assert_failed(result, reason, tmp_path):
    harness.wait_until(result.ready, 60, "the body has ended")
    assert result.state == "FAILURE"
    assert type(result.result).__name__ == "ChordError"
    assert "TaskRevokedError" in str(result.result)
    harness.wait_until(lambda: calls(tmp_path), 30, "the body's error callback was called")
    assert calls(tmp_path) == [f"called for {result.id}: ChordError"]
    assert DeadLetter.objects.get().reason == reason
    last = result.parent.results[1]
    assert (last.state, last.parent.state) == ("REVOKED", "REVOKED")


def test_that_expired(start, task, tmp_path):
    start()
    header = [task("number", 1), chain(task("number", 2, expires=LONG_AGO), task("number"))]

    result = chord(header)(task("total").on_error(task("called_with_request")))

    assert_failed(result, "expired", tmp_path)


def test_that_was_revoked_before_it_started(start, task, producer, tmp_path):
    """By an order that reaches the worker while the chain waits behind a task that is running."""
    worker = start(concurrency=1)
    task("after", str(tmp_path / "go")).apply_async()
    header = [task("number", 1), chain(task("number", 2), task("number"))]
    result = chord(header)(task("total").on_error(task("called_with_request")))
    first = result.parent.results[1].parent

    to = [f"{worker.name}@localhost"]
    replies = producer.control.revoke(first.id, reply=True, timeout=20, destination=to, limit=1)

    assert replies
    Path(tmp_path, "go").touch()
    assert_failed(result, "revoked", tmp_path)
