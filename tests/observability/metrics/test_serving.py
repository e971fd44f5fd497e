"""Where the numbers are shown: a port, or a view that is closed by default."""

import subprocess
import sys
import tempfile
import urllib.request

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.test import RequestFactory

from django_taskkit import process_identity
from django_taskkit.exceptions import ConfigurationError
from django_taskkit.observability.metrics import serving
from django_taskkit.observability.metrics.serving import address
from django_taskkit.observability.metrics.views import metrics_view

TOKEN = "a token of some length"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("9101", ("127.0.0.1", 9101)),
        (" 9101 ", ("127.0.0.1", 9101)),
        ("0.0.0.0:9101", ("0.0.0.0", 9101)),  # noqa: S104
        ("[::]:9101", ("::", 9101)),
        ("metrics.internal:80", ("metrics.internal", 80)),
    ],
)
def test_a_port_alone_is_one_of_loopback(text, found):
    assert address(text) == found


@pytest.mark.parametrize("text", ["", "nine", "70000", "host:", "-1", "host:1e3", "²"])
def test_what_is_no_port_is_refused(text):
    with pytest.raises(ConfigurationError, match="TASKKIT_METRICS_PORT is"):
        address(text)


def test_a_port_that_is_taken_is_said_and_harms_nobody(monkeypatch, settings, caplog):
    import socket

    settings.TASKKIT = {"METRICS": ["prometheus"]}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("TASKKIT_METRICS_PORT", str(taken.getsockname()[1]))

        assert serving.serve_if_asked() is None

    assert "nobody can scrape this process" in caplog.text


def test_nothing_is_served_unless_asked(monkeypatch, settings):
    monkeypatch.delenv("TASKKIT_METRICS_PORT", raising=False)
    settings.TASKKIT = {"METRICS": ["prometheus"]}
    assert serving.serve_if_asked() is None

    monkeypatch.setenv("TASKKIT_METRICS_PORT", "0")
    settings.TASKKIT = {"METRICS": ["opentelemetry"]}
    assert serving.serve_if_asked() is None


def test_a_beat_inside_of_a_worker_leaves_the_port_to_the_worker(monkeypatch, settings):
    settings.TASKKIT = {"METRICS": []}
    monkeypatch.setattr(serving, "_is_worker", False)
    asked = []
    monkeypatch.setattr(serving, "serve_if_asked", lambda: asked.append("a port"))

    serving._on_beat()
    assert asked == ["a port"]

    serving._on_worker_init()
    serving._on_beat()
    assert asked == ["a port"]


@pytest.mark.skipif(not process_identity.of_this_process(), reason="processes are told apart on Linux only")
def test_folders_of_workers_that_were_killed_are_removed_by_the_next_one(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    say = "from django_taskkit import process_identity; print(process_identity.of_this_process(), end='')"
    gone = subprocess.run([sys.executable, "-c", say], capture_output=True, text=True, check=True).stdout
    owners = {"dead": gone, "alive": process_identity.of_this_process(), "elsewhere": "another/place/1/2", "silent": ""}
    for name, owner in owners.items():
        folder = tmp_path / f"taskkit-metrics-{name}"
        folder.mkdir()
        (folder / "counter_1.db").touch()
        (folder / "owner").write_text(owner)
    (tmp_path / "taskkit-metrics-unfinished").mkdir()

    serving._remove_those_of_the_dead()

    assert {path.name.removeprefix("taskkit-metrics-") for path in tmp_path.iterdir()} == {
        *("alive", "elsewhere", "silent", "unfinished")
    }


def test_what_is_served_is_what_was_collected():
    class Nothing:
        def collect(self):
            return []

    port = serving.serve([Nothing()], "127.0.0.1", 0)
    server = serving._server
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert answer.read() == b""
    finally:
        server.shutdown()
        server.server_close()
        serving._server = None


@pytest.fixture
def prometheus(settings):
    settings.TASKKIT = {"METRICS": ["prometheus"]}


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("TASKKIT_METRICS_TOKEN", TOKEN)


def ask(user=None, **headers):
    request = RequestFactory().get("/metrics", headers=headers)
    if user is not None:
        request.user = user
    return metrics_view(request)


def test_the_view_shows_the_numbers_to_who_has_the_token(prometheus, token):
    answer = ask(authorization=f"Bearer {TOKEN}")

    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"python_info" in answer.content
    assert "no-store" in answer["Cache-Control"]


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer ", "Bearer another", f"Basic {TOKEN}", TOKEN, "Bearer é"])
def test_the_view_is_closed_to_others(prometheus, token, given):
    with pytest.raises(PermissionDenied):
        ask(authorization=given)


def test_the_view_is_closed_by_default_also_to_loopback(prometheus, monkeypatch):
    monkeypatch.delenv("TASKKIT_METRICS_TOKEN", raising=False)
    for given in ({}, {"authorization": "Bearer "}):
        with pytest.raises(PermissionDenied):
            ask(**given)


def test_a_short_token_opens_nothing(prometheus, monkeypatch):
    monkeypatch.setenv("TASKKIT_METRICS_TOKEN", "short")
    with pytest.raises(PermissionDenied):
        ask(authorization="Bearer short")


def test_a_folder_that_is_not_there_is_said(prometheus, token, monkeypatch, tmp_path):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "nowhere"))

    answer = ask(authorization=f"Bearer {TOKEN}")

    assert answer.status_code == 503
    assert b"there is no such folder: make it before the start" in answer.content


def test_the_view_is_open_to_staff(prometheus):
    assert ask(get_user_model()(username="ann", is_staff=True)).status_code == 200


@pytest.mark.parametrize("user", [{"is_staff": False}, {"is_staff": True, "is_active": False}])
def test_the_view_is_closed_to_other_users(prometheus, user):
    with pytest.raises(PermissionDenied):
        ask(get_user_model()(username="ann", **user))


def test_the_view_is_not_there_without_prometheus(settings, token):
    settings.TASKKIT = {"METRICS": ["opentelemetry"]}
    with pytest.raises(Http404):
        ask(authorization=f"Bearer {TOKEN}")


UNUSED = """
import sys
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_taskkit"])
django.setup()
print(*[name for name in sys.modules if "metrics" in name or "prometheus" in name or "opentelemetry" in name])
"""


def test_a_project_without_metrics_loads_nothing_of_them():
    done = subprocess.run([sys.executable, "-c", UNUSED], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []
