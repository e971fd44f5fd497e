import stat

import pytest
from django.conf import settings
from django.core.management import call_command

import reload
import run
from config.celery import app


@pytest.fixture(scope="module")
def graces():
    """Seconds for a warm stop of each worker."""
    return {process.name: process.stop_grace for process in reload.workers()}


def test_the_web_is_alive_whatever_the_servers_do(client):
    assert client.get("/healthz").status_code == 200


@pytest.mark.django_db
def test_the_web_is_ready_when_its_servers_answer(client):
    assert client.get("/readyz").status_code == 200
    assert client.get("/readyz?without=broker").status_code == 200


@pytest.mark.django_db
def test_the_migrations_are_complete():
    call_command("makemigrations", check=True, dry_run=True)


def test_every_task_of_the_schedule_exists():
    app.loader.import_default_modules()

    assert {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()} <= set(app.tasks)


def test_each_lane_has_a_worker(graces):
    assert set(graces) == {f"worker-{lane}" for lane in settings.TASKKIT_LANES}


def test_a_warm_stop_outlasts_the_longest_task(graces):
    assert settings.CELERY_TASK_SOFT_TIME_LIMIT < settings.CELERY_TASK_TIME_LIMIT < min(graces.values())
    assert graces["worker-reports"] > settings.TASKKIT_LANES["reports"]["time_limit"]


def test_a_cold_stop_outlasts_what_celery_gives_its_tasks():
    assert settings.CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT < run.COLD_GRACE


@pytest.mark.parametrize(
    ("task", "lane"),
    [
        ("orders.tasks.send_receipt", "customers"),
        ("orders.tasks.export_orders", "reports"),
        ("orders.closing.close_last_month", "reports"),
        ("orders.geocoding.locate_customer", "geocoding"),
        ("orders.tasks.nightly_digest", "default"),
    ],
)
def test_a_task_goes_to_its_lane(task, lane):
    assert app.amqp.router.route({}, task)["queue"].name == f"{settings.QUEUE_PREFIX}{lane}"


def test_no_other_project_on_the_broker_has_these_queues():
    assert app.amqp.queues
    assert all(name.startswith("{{ cookiecutter.project }}") for name in app.amqp.queues)


def test_the_secrets_are_private():
    file = settings.BASE_DIR / ".env"
    if not file.exists():
        pytest.skip("no .env here: the environment has it all")

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
