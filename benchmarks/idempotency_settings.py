"""Django settings of the side with django-taskkit in idempotency.py."""

import os

SECRET_KEY = "benchmark"  # noqa: S105 (of a project that lives for minutes)
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.path.join(os.environ["BENCH_FOLDER"], "db.sqlite3"),
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
    }
}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django_taskkit"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TASKKIT = {"SHARED_STORE": os.environ["BENCH_REDIS"]}
