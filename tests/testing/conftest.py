"""An app as a project has one, whose broker and result backend are out of reach: whoever asks them gets an error."""

import itertools

import pytest
from celery import Celery, _state
from celery.contrib.django.task import DjangoTask

from django_taskkit.testing import inline_worker

_names = itertools.count()


class OwnTasks(Celery):
    """An app that keeps its tasks to itself; Celery gives each ``@app.task`` to all later apps as well."""

    def task(self, *args, **options):
        return super().task(*args, **{"shared": False, **options})


@pytest.fixture
def app(without_shared_tasks):
    before, default = _state._get_current_app(), _state.default_app
    app = OwnTasks(f"project{next(_names)}", set_as_current=True, task_cls=DjangoTask)
    app.conf.update(
        broker_url="redis://127.0.0.1:1/0",
        result_backend="redis://127.0.0.1:1/1",
        task_always_eager=True,
    )
    app.set_default()
    yield app
    _state._set_current_app(before)
    _state.set_default_app(default)


@pytest.fixture
def tasks(app):
    with inline_worker() as tasks:
        yield tasks


@pytest.fixture
def eager(app):
    with inline_worker(eager=True) as tasks:
        yield tasks
