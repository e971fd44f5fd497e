"""Whose Celery app it is that messages are sent through."""

import pytest
from celery import Celery, _state, current_app

from django_taskkit.dlq import requeue, spool
from django_taskkit.dlq.project import has_app, project_app
from django_taskkit.exceptions import ConfigurationError, NoAppError
from django_taskkit.models import DeadLetter
from django_taskkit.outbox.tasks import relay


def test_is_the_one_that_is_current(station):
    assert project_app() is station.app


class TestWithoutOne:
    def test_the_error_says_what_to_do(self, no_app):
        with pytest.raises(NoAppError) as error:
            project_app()

        assert "Import the app in tests/__init__.py: from .celery import app as celery_app" in str(error.value)
        assert isinstance(error.value, ConfigurationError)

    def test_that_of_celery_is_none_whoever_asked_for_it_first(self, no_app):
        assert current_app.main == "default"

        assert not has_app()

    def test_nor_does_the_environment_make_it_one(self, no_app, monkeypatch):
        monkeypatch.setenv("CELERY_BROKER_URL", "memory://")

        assert not has_app()

    def test_asking_makes_none(self, no_app):
        has_app()

        assert _state.default_app is None

    def test_that_of_celery_is_one_if_it_was_configured(self, no_app):
        current_app.conf.update(broker_url="memory://")

        assert project_app().main == "default"

    def test_as_by_a_module_celeryconfig(self, no_app, monkeypatch):
        monkeypatch.setenv("CELERY_CONFIG_MODULE", "tests.celery_app")
        monkeypatch.setattr("tests.celery_app.broker_url", "memory://", raising=False)

        assert has_app()
        assert project_app().conf.broker_url == "memory://"

    @pytest.mark.django_db
    def test_nothing_is_requeued(self, no_app, dead_letter):
        with pytest.raises(NoAppError):
            requeue(dead_letter)

        dead_letter.refresh_from_db()
        assert dead_letter.status == "dead"

    @pytest.mark.django_db
    def test_but_with_an_app_that_is_given(self, station, no_app, dead_letter):
        assert requeue(dead_letter, app=station.app).requeued == 1

    def test_the_relays_task_sends_nothing(self, no_app):
        with pytest.raises(NoAppError):
            relay.run()

    def test_what_is_spooled_becomes_a_file(self, no_app, settings, tmp_path):
        from tests.dlq.test_spool import death

        settings.TASKKIT = {"SPOOL_DIR": str(tmp_path / "spool")}

        assert spool.keep(death()).startswith("file ")


def test_an_app_that_is_named_as_celerys_is_the_projects_all_the_same(no_app):
    app = Celery("default")

    assert project_app() is app


@pytest.fixture
def dead_letter(db):
    from django.utils import timezone

    return DeadLetter.objects.create(
        task_id="x",
        task_name="t",
        reason="exception",
        queue="anything",
        died_at=timezone.now(),
        body=b"[[], {}, {}]",
        content_type="application/json",
        content_encoding="utf-8",
        headers={"id": "x", "task": "t"},
    )
