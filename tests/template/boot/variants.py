"""The projects that are booted: each broker, each database, each kind of deployment at least once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Read by the project in place of config.settings.production, which it changes in what a test can't wait for.
IMPATIENT = """\
from config.settings.production import *
from config.settings.production import CELERY_BEAT_SCHEDULE, CELERY_BROKER_TRANSPORT_OPTIONS

EMAIL_USE_TLS = False  # the mail server of the tests, on loopback
"""

#: Redis and SQS give the messages of a killed worker to the next one after a time without a word of it: an hour.
#: It has to be longer than any task runs here.
SHORT_VISIBILITY = """\
CELERY_BROKER_TRANSPORT_OPTIONS = {**CELERY_BROKER_TRANSPORT_OPTIONS, "visibility_timeout": 30}
"""

#: Celery looks only every 100 seconds whether such messages are there.
OFTEN_RESTORED = """\
CELERY_BROKER_TRANSPORT_OPTIONS["unacked_restore_throttle"] = 1
"""

#: Where the schedule is in the settings, nothing that is due soon can be put there while beat runs.
DUE_SOON = """\
CELERY_BEAT_SCHEDULE["soon"] = {"task": "orders.tasks.clear_sessions", "schedule": 5}
"""


@dataclass(frozen=True)
class Variant:
    name: str
    answers: Mapping[str, str]
    settings: str = IMPATIENT

    environment: Mapping[str, str] = field(default_factory=dict)

    def __getattr__(self, name: str) -> str:
        try:
            return {**DEFAULTS, **self.answers}[name]
        except KeyError:
            raise AttributeError(name) from None


DEFAULTS = {
    "database": "sqlite",
    "broker": "embedded",
    "results": "database",
    "scheduler": "django-celery-beat",
    "flower": "no",
    "observability": "none",
    "deployment": "compose",
}

# All have the Django that is installed: the one of the environment that the tests run in.
VARIANTS = [
    Variant("no-server", {"deployment": "supervisor"}),
    Variant(
        "redis",
        {
            "database": "postgresql",
            "broker": "redis",
            "results": "redis",
            "flower": "yes",
            "observability": "prometheus",
            "deployment": "systemd",
        },
        settings=IMPATIENT + SHORT_VISIBILITY + OFTEN_RESTORED,
        environment={"TASKKIT_METRICS_TOKEN": "a token that only this test has"},
    ),
    Variant(
        "mariadb",
        {
            "database": "mariadb",
            "broker": "rabbitmq",
            "scheduler": "file",
            "flower": "yes",
            "observability": "sentry",
            "deployment": "kubernetes",
        },
        settings=IMPATIENT + DUE_SOON,
    ),
    Variant(
        "rabbitmq",
        {"database": "postgresql", "broker": "rabbitmq", "observability": "opentelemetry", "deployment": "compose"},
    ),
    Variant(
        "sqs",
        {"database": "postgresql", "broker": "sqs", "scheduler": "file", "deployment": "compose"},
        settings=IMPATIENT + SHORT_VISIBILITY + DUE_SOON,
    ),
]
