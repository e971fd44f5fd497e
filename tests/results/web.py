"""A project with tasks, their views and a worker, for tests that are its visitors."""

import types
from functools import partial

import pytest
from django.test import Client, override_settings
from django.urls import include, path

from django_taskkit.results import ResultCache

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
"""What a browser accepts when somebody opens a page."""

SECRET = "the vault's combination is 7-7-7"
"""What an exception says, and no response may."""


class Project:
    """Its tasks, its URLs, and what its visitors get."""

    def __init__(self, station, clock=None):
        self.app = station.app
        self.run = station.run_all
        self.waiting = station.waiting
        self.advance = clock and clock.shift
        self.urls = types.ModuleType("urls_of_a_test")
        self.urls.urlpatterns = [path("tasks/", include("django_taskkit.results.urls"))]
        self.calls = []
        self.client = Client(raise_request_exception=False)

    def cache(self, function, **options):
        """Make a task of ``function``, and a ResultCache of the task."""
        name = f"shop.{function.__name__}"
        return ResultCache(self.app.task(name=name)(function), **options)

    @property
    def report(self):
        """A cached task that says what it was called with."""

        def report(year, month=1):
            self.calls.append((year, month))
            return {"year": year, "month": month, "run": len(self.calls)}

        return partial(self.cache, report)

    @property
    def broken(self):
        """A cached task that fails, saying what nobody may see."""

        def broken(year):
            raise RuntimeError(SECRET)

        return partial(self.cache, broken)

    def serve(self, route, view, name=None):
        self.urls.urlpatterns.append(path(route, view, name=name))

    def get(self, url, accept="application/json", client=None, **headers):
        client = client or self.client
        return client.get(url, headers={"accept": accept, **headers})


@pytest.fixture(name="project")
def a_project(db, station, clock):
    project = Project(station, clock)
    with override_settings(ROOT_URLCONF=project.urls):
        yield project


@pytest.fixture(name="live_project")
def a_live_project(db, station):
    """A project in which time passes by itself: an event loop doesn't go on while a clock stands still."""
    project = Project(station)
    with override_settings(ROOT_URLCONF=project.urls):
        yield project
