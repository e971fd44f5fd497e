from datetime import timedelta

import pytest

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.doctor.results import expiry, results
from django_taskkit.doctor.settings import settings as static
from django_taskkit.doctor.store import store


def test_a_backend_that_keeps_results_is_fine(site, levels):
    assert levels(results(site)) == {"results": "ok", "result-expiry": "ok"}


def test_without_a_backend_there_is_nothing_to_try(app, site):
    app.conf.result_backend = None

    [found] = results(site)

    assert (found.level.value, found.text) == ("ok", "No result backend is set.")


def test_results_over_rpc_cannot_be_tried(app, site, levels):
    app.conf.result_backend = "rpc://"

    assert levels(results(site)) == {"results": "unknown"}


def test_a_backend_that_cannot_be_made_is_an_error_without_its_password(app, site):
    app.conf.result_backend = "nonsense://:secret@host"

    [found] = results(site)

    assert found.level.value == "error"
    assert "secret" not in found.text


@pytest.mark.parametrize(
    ("kept", "configured", "level"),
    [
        ({"ttl": 86400}, 86400, "ok"),
        ({"ttl": -1}, 86400, "warning"),
        ({}, 0, "warning"),
        ({}, None, "warning"),
        ({"cleaned": True}, timedelta(days=1), "ok"),
        ({}, timedelta(days=1), "ok"),
    ],
)
def test_results_that_never_expire_are_a_warning(kept, configured, level):
    assert expiry(kept, configured).level.value == level


CACHE = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "doctor"}}
NOTHING = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}


def test_a_store_that_keeps_what_it_gets_is_fine(site, levels, settings):
    settings.CACHES = CACHE

    assert levels(store(site)) == {"store": "ok"}


def test_a_store_that_is_none_matters_only_to_those_who_need_one(add_task, site, levels, settings):
    settings.CACHES = NOTHING
    assert levels(store(site)) == {"store": "ok"}

    add_task("shop.once", base=BaseTaskWithRetry, idempotency_key="{0}")

    assert levels(store(site)) == {"store": "error"}


def test_a_store_out_of_reach_is_an_error(site, levels, settings):
    settings.TASKKIT = {"SHARED_STORE": "redis://127.0.0.1:1/0"}

    assert levels(store(site)) == {"store": "error"}


def test_static_checks_are_found_with_their_own_ids(site, settings):
    settings.TASKKIT = {"NO_SUCH_KEY": 1}

    found = {finding.id: finding for finding in static(site)}

    assert found["taskkit.E001"].level.value == "error"
    assert "NO_SUCH_KEY" in found["taskkit.E001"].text
    assert found["taskkit.E001"].remedy


def test_a_check_that_was_silenced_is_silent_here_too(site, settings):
    settings.TASKKIT = {"NO_SUCH_KEY": 1}
    settings.SILENCED_SYSTEM_CHECKS = ["taskkit.E001"]

    assert "taskkit.E001" not in {finding.id for finding in static(site)}
