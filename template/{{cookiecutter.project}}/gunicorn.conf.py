"""How gunicorn serves the site, on every kind of machine; what is on its command line wins."""
{% if cookiecutter.observability == "prometheus" %}
import os
import shutil
import tempfile
{%- endif %}
from pathlib import Path

from config.environment import Environment

_env = Environment()

# Loopback only: who can reach gunicorn can say that a request came by HTTPS. In a container nobody else reaches its
# loopback, so the image says 0.0.0.0 (GUNICORN_CMD_ARGS).
bind = "127.0.0.1:8000"

# Processes, and threads in each: requests here wait for the database more than they compute. (Not WEB_CONCURRENCY, the
# name that gunicorn reads itself: it does not start if that is there and blank.)
worker_class = "gthread"
workers = _env.number("WEB_PROCESSES", 2)
threads = _env.number("WEB_THREADS", 4)

# The code is loaded once, before the processes fork off: one that is replaced has the same code as all others. Without:
# it loads what lies on the disk by then, which may be the next release, before its migrations. Nothing may open a
# connection or start a thread while it is loaded, as neither survives the fork.
preload_app = True

# A process is replaced after so many requests, not all at the same time. Without: what leaks, leaks until the machine
# kills something.
max_requests = 2000
max_requests_jitter = 400

# Seconds without a sign of life of a process until it is killed.
timeout = 60
# Where processes leave that sign: in memory. Without: a disk that is slow for a minute costs all processes.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108

# Seconds for requests to come to their end on TERM. What stops the web (compose, systemd, Kubernetes) waits longer.
graceful_timeout = 30
# Seconds that an idle connection of the proxy is kept: longer than the proxy keeps it. Without: now and then the proxy
# sends a request into a connection that is being closed, and somebody sees an error.
keepalive = 75

# Who may say by X-Forwarded-Proto that the request was HTTPS. Only the proxy reaches this port, so: whoever asks.
forwarded_allow_ips = "*"

# No log of requests: the proxy has one, with the same request id. gunicorn's own lines are JSON, as all others.
accesslog = None
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "django_taskkit.observability.logs.JSONFormatter"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["console"], "level": "INFO"},
    "loggers": {
        "gunicorn.error": {"handlers": [], "level": "INFO", "propagate": True},
        # WARNING: with a logconfig_dict, gunicorn logs every request, whatever accesslog says.
        "gunicorn.access": {"handlers": [], "level": "WARNING", "propagate": True},
    },
}

# Its default place is below the home folder, which a container does not have.
control_socket_disable = True
{%- if cookiecutter.observability == "prometheus" %}

# Every process counts in files of its own in this folder, and whichever is asked for /metrics shows the sum. It is new
# for each start. Without: each shows its own numbers, which jump from one scrape to the next.
_own_folder = "PROMETHEUS_MULTIPROC_DIR" not in os.environ
if _own_folder:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="{{ cookiecutter.project }}-metrics-")


def child_exit(server, worker):
    """What a process counted stays; what it had at this moment (gauges) goes."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)


def on_exit(server):
    if _own_folder:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
{%- endif %}


def when_ready(server):
    """Before the processes fork off: load what Django leaves to its first request, the addresses and so all views."""
    from django.urls import get_resolver

    get_resolver().url_patterns  # noqa: B018
