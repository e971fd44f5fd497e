"""Projects with one fault each."""

from types import SimpleNamespace

import pytest

from tests.own_apps import OwnTasks, current_app_kept

REDIS = "redis://127.0.0.1:1/0"
RABBITMQ = "amqp://127.0.0.1:1//"
SQS = "sqs://"


@pytest.fixture
def configured(without_shared_tasks):
    """Make an app current that reads its settings from a module, or a dict, as ``config_from_object`` does."""
    with current_app_kept():

        def configured(source, namespace="CELERY"):
            app = OwnTasks("configured", fixups=[], set_as_current=True)
            app.config_from_object(source, namespace=namespace)
            app.set_default()
            return app

        yield configured


@pytest.fixture
def module():
    """Settings as a module has them: names, not keys."""
    return lambda **names: SimpleNamespace(**names)


@pytest.fixture
def late(station):
    """Register tasks that are acknowledged late, with options."""

    def late(name="long", **options):
        @station.app.task(name=name, **{"acks_late": True, **options})
        def run(): ...

        return run

    return late
