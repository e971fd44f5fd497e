"""A Django project for both sides; the one with django-taskkit has one more app."""

import os

SECRET_KEY = "benchmark"  # noqa: S105 (of a project that lives for minutes)
USE_TZ = True
WITH_TASKKIT = bool(os.environ["BENCH_TASKKIT"])
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", *(["django_taskkit"] if WITH_TASKKIT else [])]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["BENCH_FOLDER"] + "/db.sqlite3"}}
