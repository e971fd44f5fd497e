import pytest
from celery import Celery

from django_taskkit.doctor.site import Site


@pytest.fixture
def app(without_shared_tasks):
    """A project's app whose messages and results stay in this process."""
    app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False, fixups=[])
    app.conf.task_default_queue = "doctor-default"
    yield app
    app.close()


@pytest.fixture
def site(app):
    return Site(app, timeout=10)


@pytest.fixture
def add_task(app):
    """``add_task(name, **options)``: a task of the project's app."""

    def add_task(name, **options):
        def run(number=0):
            return number

        app.task(name=name, shared=False, **options)(run)
        app.finalize()

    return add_task


@pytest.fixture
def levels():
    """``levels(findings)``: the level of each by id, of several with one id the last."""
    return lambda found: {finding.id: finding.level.value for finding in found}
