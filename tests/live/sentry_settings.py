"""Django settings of the worker in test_sentry.py: those of letters_settings.py, with Sentry."""

import os

import sentry_sdk
from letters_settings import *  # noqa: F403
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.integrations.django import DjangoIntegration

from django_taskkit.observability.sentry import TaskkitIntegration

TASKKIT = {"RELEASE": "1.4.2", "SITE_URL": "https://shop.example"}

if dsn := os.environ.get("TASKKIT_TEST_DSN"):
    sentry_sdk.init(
        dsn=dsn,
        integrations=[TaskkitIntegration(), CeleryIntegration(), DjangoIntegration()],
        auto_enabling_integrations=False,
        send_default_pii=True,
        traces_sample_rate=0.0,
    )
