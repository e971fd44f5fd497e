"""Fixtures over `harness`: a real broker, and real workers that are stopped afterwards."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, _state

HERE = Path(__file__).resolve().parent
# ``import harness`` and ``celery -A contract_app`` work under every import mode of pytest.
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

import harness


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "live: needs real brokers and starts real workers")


def pytest_unconfigure() -> None:
    harness.close_services()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.live)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed and HERE in item.path.parents:
        for worker in harness.running_workers:
            if worker.log_path.exists():
                report.sections.append((f"log of worker {worker.name}", worker.log_tail()))
    return report


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Iterator[harness.Broker]:
    """A queue of its own on Redis, or on the broker named by an indirect parameter."""
    with harness.open_broker(getattr(request, "param", "redis")) as broker:
        yield broker


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., harness.Worker]]:
    """``start_worker("module_of_app", broker, pool="prefork", concurrency=2, env={...})``; stopped at the end."""
    with harness.workers(tmp_path) as start:
        yield start


@pytest.fixture
def django_env() -> dict[str, str]:
    """What a worker's environment must say for it to be a Django process on the database of this test."""
    return _django_env()


def _django_env() -> dict[str, str]:
    import letters_settings
    from django.db import connection

    settings = {
        name: connection.settings_dict[name]
        for name in ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")
    }
    return {
        "DJANGO_SETTINGS_MODULE": "letters_settings",
        letters_settings.DATABASE_VARIABLE: json.dumps(settings, default=str),
    }


@pytest.fixture
def producer(broker: harness.Broker) -> Iterator[Celery]:
    """An app on the broker of this test, as the current one."""
    before = _state._get_current_app()
    app = broker.app()
    app.set_current()
    yield app
    _state._set_current_app(before)
    app.close()


@pytest.fixture(scope="module")
def result_caches(tables_of_results: None, django_db_blocker: Any) -> Iterator[dict[str, Any]]:
    """``CACHES`` with one of each kind, on real servers; see result_caches.py."""
    import result_caches

    with result_caches.open_caches(django_db_blocker) as caches:
        yield caches


@pytest.fixture(scope="module")
def result_env(result_caches: dict[str, Any]) -> Callable[..., dict[str, str]]:
    """``result_env(OUTBOX="never")``: what a process on these caches has to know, for all tests of a file."""
    from result_caches import environment

    return lambda caches=None, **taskkit: environment(_django_env(), caches or result_caches, **taskkit)


@pytest.fixture
def server() -> Iterator[harness.RedisServer]:
    """A Redis that the test may kill, and that then has what it had."""
    server = harness.RedisServer(durable=True).start()
    yield server
    server.close()
