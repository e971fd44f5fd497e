"""What is installed, and what importing it costs."""

import configparser
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import django_taskkit

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "django_taskkit"
MODULES = sorted(SOURCE.rglob("*.py"))

WORKER = """
import sys
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_taskkit"])
django.setup()
import celery.worker.consumer, celery.worker.request, celery.worker.strategy, celery.concurrency.prefork
from celery import Celery
Celery("project").finalize()
print(*sys.modules)
"""
"""A project that has the app, and no task of its own."""

HEAVY = (
    *(f"django_taskkit.base_tasks.{name}" for name in ("asked", "attempt", "dead_letter", "gates", "policy", "retry")),
    *(f"django_taskkit.dlq.{name}" for name in ("bulk", "editing", "preflight", "transfer", "transitions")),
    *("django_taskkit.dlq.redrive.chunk", "django_taskkit.dlq.redrive.runner", "django_taskkit.outbox.relay"),
    *("django_taskkit.admin", "django_taskkit.management", "django_taskkit.probe", "django_taskkit.testing"),
    *("django_taskkit.beat.making", "django_taskkit.beat.scheduler", "django_taskkit.doctor"),
    *(f"django_taskkit.observability.{name}" for name in ("brokers", "deadline", "metrics", "queues", "workers")),
    *("django_taskkit.observability.logs", "django_taskkit.worker.report_command"),
    *("django_taskkit.backoff", "django_taskkit.results", "django_taskkit.stores", "django_taskkit.transports.redis"),
    *("django.contrib.admin", "django.contrib.sessions", "django.core.cache.backends.locmem", "django.test"),
    *("celery.bin", "cryptography", "kombu.transport.redis", "pytest", "redis", "sqlite3"),
    *("opentelemetry", "prometheus_client", "sentry_sdk", "structlog"),
)
"""What most processes have no use for."""

VAGUE = {"utils", "helpers", "common", "manager", "managers", "misc"}


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def relative(paths):
    return sorted(str(path.relative_to(ROOT)) for path in paths)


def test_importing_the_package_loads_neither_django_nor_celery():
    loaded = run("import sys, django_taskkit; print(*sys.modules)")

    assert {name.split(".")[0] for name in loaded} & {"django", "celery", "kombu"} == set()
    assert [name for name in loaded if name.startswith("django_taskkit")] == ["django_taskkit"]


def test_importing_the_package_starts_nothing():
    before = "import threading, signal, logging, django_taskkit; "

    assert run(before + "print(threading.active_count(), len(logging.root.manager.loggerDict))") == ["1", "0"]


def test_installing_the_app_loads_nothing_that_is_needed_later_or_by_others():
    loaded = run(WORKER)

    assert "django_taskkit.worker.hooks" in loaded
    assert [name for name in loaded if name.startswith(tuple(f"{heavy}." for heavy in HEAVY)) or name in HEAVY] == []


def test_a_name_that_the_package_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = django_taskkit.no_such_name


def test_the_version_is_that_of_the_metadata():
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg")

    assert django_taskkit.__version__ == metadata["metadata"]["version"]


def test_it_says_that_it_is_typed():
    assert (SOURCE / "py.typed").exists()


def test_no_module_is_longer_than_300_lines():
    assert relative(path for path in MODULES if len(path.read_text().splitlines()) > 300) == []


def test_no_module_has_a_name_that_says_nothing():
    assert relative(path for path in MODULES if path.stem in VAGUE or path.parent.name in VAGUE) == []


@pytest.mark.skipif("TASKKIT_TEST_INSTALLED" not in os.environ, reason="tox sets it; the tests run on the checkout")
def test_the_package_under_test_is_the_installed_one():
    assert SOURCE not in Path(django_taskkit.__file__).parents


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that tox built, or one that is built now."""
    if built := os.environ.get("TOX_PACKAGE"):
        path = Path(built)
    else:
        if not importlib.util.find_spec("build"):
            pytest.skip("needs tox, or the package `build`")
        folder = tmp_path_factory.mktemp("wheel")
        subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)], check=True)
        (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel):
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    source = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert inside == source, "if files are left over from an older build: rm -rf build"


def test_the_wheel_carries_the_licence(wheel):
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())
