"""Where Prometheus finds the numbers of a worker, of beat or of the relay: a port of the process itself.

``TASKKIT_METRICS_PORT`` names it, for each process one of its own: ``9101``, on loopback alone, or ``0.0.0.0:9101``.
The processes of a worker's pool count in files that the worker adds up; those of processes that ended are kept.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import signals

from django_taskkit import conf, process_identity
from django_taskkit.exceptions import ConfigurationError

logger = logging.getLogger("django_taskkit")

PORT_VARIABLE = "TASKKIT_METRICS_PORT"
LOOPBACK = "127.0.0.1"
PREFIX = "taskkit-metrics-"
OWNER = "owner"
"""The file in a worker's folder that says whose it is."""

_server: Any = None
_private: str | None = None
"""The folder that this worker has made for its processes."""
_is_worker = False


def install() -> None:
    """Serve once a worker or beat is ready, if the environment names a port."""
    for signal, receiver in (
        (signals.celeryd_init, _on_worker_init),
        (signals.worker_ready, _on_ready),
        (signals.beat_init, _on_beat),
    ):
        signal.connect(receiver, dispatch_uid=f"django_taskkit.metrics{receiver.__name__}", weak=False)
    os.register_at_fork(after_in_child=_leave_port)


def address(text: str, given_by: str = PORT_VARIABLE) -> tuple[str, int]:
    """Return host and port of ``9101``, ``0.0.0.0:9101`` or ``[::]:9101``; without a host it is loopback.

    Raises:
        ConfigurationError: it is neither.
    """
    host, _, port = text.strip().rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() else -1
    if not 0 <= number <= 65535:
        raise ConfigurationError(f"{given_by} is {text!r}; give a port, such as '9101', or '0.0.0.0:9101'")
    return host.strip("[]") or LOOPBACK, number


def serve_if_asked() -> int | None:
    """Serve the numbers of this process at the port that the environment names; return it, None if there is none.

    A process whose port is taken goes on without, and says so in its log.
    """
    asked = os.environ.get(PORT_VARIABLE, "").strip()
    if not asked or "prometheus" not in conf.current().metrics:
        return None
    try:
        from django_taskkit.observability.metrics import counting

        counting.counters()  # a scrape before the first task finds the metrics already
        return serve([Processes()], *address(asked))
    except (ImportError, OSError, ConfigurationError) as exc:
        logger.error("metrics: nobody can scrape this process: %s (%s=%s)", exc, PORT_VARIABLE, asked)
        return None


def serve(collectors: Iterable[Any], host: str, port: int) -> int:
    """Serve what ``collectors`` collect, in a thread; return the port.

    Raises:
        OSError: the port is taken, or may not be used.
    """
    global _server
    import prometheus_client

    registry = prometheus_client.CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    _server, _thread = prometheus_client.start_http_server(port, addr=host, registry=registry)
    found = int(_server.server_port)
    logger.info("metrics: http://%s:%s/metrics", f"[{host}]" if ":" in host else host, found)
    return found


class Processes:
    """Collects what the processes have counted that share this one's folder; without one, what it has counted."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()

    def collect(self) -> Iterable[Any]:
        from django_taskkit.observability.metrics import ended, prometheus

        with self._one_at_a_time:
            if _private is not None:
                ended.keep(_private)
            return list(prometheus.shown().collect())


def _on_worker_init(**kwargs: Any) -> None:
    """Have the processes of the pool count in files, unless the project has named a folder for them."""
    global _private, _is_worker
    _is_worker = True
    if "prometheus" not in conf.current().metrics:
        return
    from django_taskkit.observability.metrics.counting import restart

    try:
        from django_taskkit.observability.metrics.prometheus import FOLDER_VARIABLE
    except ImportError:  # who counts says so
        return
    if os.environ.get(FOLDER_VARIABLE):
        return
    if not os.environ.get(PORT_VARIABLE):
        logger.warning("metrics are counted and nobody can scrape them: set %s, such as 9101", PORT_VARIABLE)
        return
    _remove_those_of_the_dead()
    _private = tempfile.mkdtemp(prefix=PREFIX)
    Path(_private, OWNER).write_text(process_identity.of_this_process())
    os.environ[FOLDER_VARIABLE] = _private
    values: Any = sys.modules["prometheus_client.values"]
    values.ValueClass = values.get_value_class()  # it was chosen before, when the library was imported
    restart()
    atexit.register(_remove, _private, os.getpid())


def _on_ready(**kwargs: Any) -> None:
    serve_if_asked()


def _on_beat(**kwargs: Any) -> None:
    """A beat inside of a worker (``-B``) counts in the worker's folder, and leaves the port to it."""
    if not _is_worker:
        serve_if_asked()


def _remove_those_of_the_dead() -> None:
    """Remove folders of this user's workers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.lstat().st_uid == os.geteuid() and process_identity.is_gone((folder / OWNER).read_text()):
                shutil.rmtree(folder, ignore_errors=True)


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _leave_port() -> None:
    """A process of the pool that outlives its worker must not keep the next worker from the port."""
    if _server is not None:
        _server.socket.close()
