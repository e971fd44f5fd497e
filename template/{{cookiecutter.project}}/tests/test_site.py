import io
import os
import stat

import pytest
from django.conf import settings
from django.core.management import call_command

from config import health


@pytest.mark.django_db
def test_healthz_answers_and_tells_of_the_tasks(client):
    health.HEARTBEAT.unlink(missing_ok=True)
    health.RELAY.unlink(missing_ok=True)
    assert client.get("/healthz").json() == {
        "web": "ok",
        "database": "ok",
        "tasks": "no heartbeat yet",
        "relay": "no relay yet",
    }

    health.heartbeat()
    assert client.get("/healthz").json()["tasks"] == "ok"

    os.utime(health.HEARTBEAT, (0, 0))
    assert client.get("/healthz").json()["tasks"].startswith("no heartbeat for ")


@pytest.mark.django_db
def test_healthz_tells_of_the_relay(client):
    call_command("taskkit", "relay", "--once", "--health-file", str(health.RELAY), stdout=io.StringIO())
    assert client.get("/healthz").json()["relay"] == "ok"

    health.RELAY.write_text('{"errors": ["outbox: the broker can\'t be reached"]}')
    assert client.get("/healthz").json()["relay"] == "outbox: the broker can't be reached"

    os.utime(health.RELAY, (0, 0))
    assert client.get("/healthz").json()["relay"].startswith("no relay for ")


@pytest.mark.django_db
def test_the_migrations_are_complete():
    call_command("makemigrations", check=True, dry_run=True)


def test_every_task_of_the_schedule_exists():
    from config.celery import app

    app.loader.import_default_modules()

    assert {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()} <= set(app.tasks)


def test_a_warm_stop_outlasts_the_longest_task():
    import run

    graces = {process.name: process.stop_grace for process in run.workers()}
    assert set(graces) == {"worker-customers", "worker-default", "worker-reports"}
    assert settings.CELERY_TASK_SOFT_TIME_LIMIT < settings.CELERY_TASK_TIME_LIMIT < min(graces.values())
    assert graces["worker-reports"] > settings.TASKKIT_LANES["reports"]["time_limit"]
    assert settings.CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT < run.COLD_GRACE


@pytest.mark.parametrize(
    ("task", "lane"),
    [
        ("orders.tasks.send_receipt", "customers"),
        ("orders.tasks.export_orders", "reports"),
        ("orders.tasks.daily_digest", "default"),
    ],
)
def test_a_task_goes_to_its_lane(task, lane):
    from config.celery import app

    assert app.amqp.router.route({}, task)["queue"].name == lane


def test_the_secrets_are_private():
    file = settings.BASE_DIR / ".env"
    if not file.exists():
        pytest.skip("no .env here: the environment has it all")

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
