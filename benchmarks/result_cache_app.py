"""The project of the benchmark of cached results: its settings, its Celery app and its one task."""

from __future__ import annotations

import os

import django
from celery import Celery
from django.conf import settings

REDIS = os.environ["BENCH_REDIS"]

settings.configure(
    SECRET_KEY="for the benchmark only",  # noqa: S106
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_celery_results", "django_taskkit"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["BENCH_DATABASE"],
            "OPTIONS": {"timeout": 30, "init_command": "PRAGMA journal_mode=WAL", "transaction_mode": "IMMEDIATE"},
        }
    },
    CACHES={
        "redis": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"{REDIS}/0"},
        "database": {
            "BACKEND": "django.core.cache.backends.db.DatabaseCache",
            "LOCATION": "bench_cache",
            "OPTIONS": {"MAX_ENTRIES": 100_000},
        },
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    },
)

app = Celery(
    "bench", broker=f"{REDIS}/1", backend={"redis": f"{REDIS}/2"}.get(os.environ.get("BENCH_BACKEND", ""), "django-db")
)
app.set_default()


@app.task(name="shop.tasks.build_report")
def build_report(user_id: int, month: str = "2026-11") -> None:
    """Never run: what is measured is how often it is sent, and how its value is read."""


django.setup()
