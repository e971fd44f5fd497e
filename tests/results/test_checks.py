"""What ``manage.py check`` says about cached results."""

from __future__ import annotations

import pytest
from django.core import checks

from django_taskkit.results import ResultCache

pytestmark = pytest.mark.django_db  # some of the other checks ask a server

DATABASE = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "pages"}


def found(cache):
    return [message for message in checks.run_checks(tags=["django_taskkit"]) if message.obj is cache]


def test_a_cache_in_the_memory_of_each_process_is_told(report):
    cache = ResultCache(report)

    (warning,) = found(cache)

    assert warning.id == "taskkit.W012"
    assert "what a worker makes never reaches a page" in warning.msg


def test_it_does_no_harm_where_tasks_run_at_once(station, report):
    station.app.conf.task_always_eager = True

    assert found(ResultCache(report)) == []


def test_a_cache_that_keeps_few_entries_is_told(report, settings):
    settings.CACHES = {"default": DATABASE}
    cache = ResultCache(report)

    (warning,) = found(cache)

    assert warning.id == "taskkit.W013"
    assert "beyond 300" in warning.msg


def test_one_that_keeps_many_is_right(report, settings):
    settings.CACHES = {"default": {**DATABASE, "OPTIONS": {"MAX_ENTRIES": 100_000}}}

    assert found(ResultCache(report)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": "pages"}, "cache is 'pages'; give the alias of a cache"),
        ({"vary_on": ("year",)}, "the task has no argument 'year'"),
        ({"tags": ("{year}",)}, "the task has no argument 'year'"),
    ],
    ids=["cache", "vary_on", "tags"],
)
def test_what_every_request_would_raise_is_an_error(report, options, message):
    cache = ResultCache(report, **options)

    (error,) = found(cache)

    assert error.id == "taskkit.E007"
    assert message in error.msg


def test_a_cache_that_keeps_nothing_is_an_error(report, settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

    (error,) = found(ResultCache(report))

    assert error.id == "taskkit.E007"
    assert "DummyCache, which keeps nothing" in error.msg
