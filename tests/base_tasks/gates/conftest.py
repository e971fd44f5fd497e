"""The store of budgets and breakers: in memory, empty, and unknown to this process."""

import pytest
from django.core.cache import caches
from django.test import override_settings

from django_taskkit.base_tasks.gates import breaker_view, budget_ledger
from django_taskkit.stores import pausing
from django_taskkit.stores.opening import shared_store

MEMORY = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "gates"}}


@pytest.fixture
def store():
    with override_settings(CACHES=MEMORY, TASKKIT={}):
        caches["default"].clear()
        breaker_view.views.clear()
        budget_ledger.ledgers.clear()
        pausing.warnings.forget()
        yield shared_store()


@pytest.fixture
def out_of_reach(store):
    with override_settings(TASKKIT={"SHARED_STORE": "redis://127.0.0.1:1/0"}):
        yield
