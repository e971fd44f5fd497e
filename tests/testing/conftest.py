"""An app as a project has one, whose broker and result backend are out of reach: whoever asks them gets an error."""

import itertools

import pytest
from celery.contrib.django.task import DjangoTask

from django_taskkit.testing import inline_worker
from tests.own_apps import OwnTasks, current_app_kept

_names = itertools.count()


@pytest.fixture
def app(without_shared_tasks):
    with current_app_kept():
        app = OwnTasks(f"project{next(_names)}", set_as_current=True, task_cls=DjangoTask)
        app.conf.update(
            broker_url="redis://127.0.0.1:1/0",
            result_backend="redis://127.0.0.1:1/1",
            task_always_eager=True,
        )
        app.set_default()
        yield app


@pytest.fixture
def add(app):
    @app.task(name="shop.add")
    def add(x, y):
        return x + y

    return add


@pytest.fixture
def tasks(app):
    with inline_worker() as tasks:
        yield tasks


@pytest.fixture
def eager(app):
    with inline_worker(eager=True) as tasks:
        yield tasks
