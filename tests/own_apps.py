"""Celery apps that a test makes for itself, and that no other test hears of."""

from contextlib import contextmanager

from celery import Celery, _state


class OwnTasks(Celery):
    """An app that keeps its tasks to itself; Celery gives each ``@app.task`` to all later apps as well."""

    def task(self, *args, **options):
        return super().task(*args, **{"shared": False, **options})


@contextmanager
def current_app_kept():
    """Whatever is the current app in the block, afterwards it is the one before."""
    before, default = _state._get_current_app(), _state.default_app
    try:
        yield
    finally:
        _state._set_current_app(before)
        _state.set_default_app(default)
