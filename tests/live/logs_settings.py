"""Django settings of the processes in test_logs.py: those of letters_settings.py, with JSON logs and request ids."""

import os

from letters_settings import *  # noqa: F403

MIDDLEWARE = ["django_taskkit.observability.middleware.RequestIDMiddleware"]
ROOT_URLCONF = "logs_web"
ASGI_APPLICATION = "logs_web.application"

_HANDLERS = {"handlers": ["json"], "level": "INFO"}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "django_taskkit.observability.logs.JSONFormatter"}},
    "handlers": {"json": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": _HANDLERS,
    # Without it Celery gives tasks' loggers a handler of its own.
    "loggers": {"celery.task": {**_HANDLERS, "propagate": False}} if "TASKKIT_TEST_NO_HIJACK" in os.environ else {},
}
