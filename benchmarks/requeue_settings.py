"""The Django project of requeue.py; the loop that people write is measured without django-taskkit in it."""

import os

SECRET_KEY = "benchmark"  # noqa: S105 (of a project that lives for minutes)
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
if os.environ["BENCH_SIDE"] != "loop":
    INSTALLED_APPS.append("django_taskkit")
KIND = os.environ.get("TASKKIT_TEST_DATABASE", "sqlite")
ENGINES = {"sqlite": "sqlite3", "postgresql": "postgresql", "mariadb": "mysql"}
DATABASE = {"ENGINE": f"django.db.backends.{ENGINES[KIND]}", "NAME": os.environ["BENCH_DATABASE"]}
DATABASE["TEST"] = {"NAME": os.environ["BENCH_DATABASE"]}
if KIND == "sqlite":
    DATABASE["OPTIONS"] = {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"}
else:
    for key, default in {"HOST": "127.0.0.1", "USER": "root", "PASSWORD": ""}.items():
        DATABASE[key] = os.environ.get(f"TASKKIT_TEST_{KIND.upper()}_{key}", default)
    if os.environ["BENCH_SIDE"] == "driver" and KIND == "postgresql":
        DATABASE["NAME"] = "postgres"
if KIND == "mariadb":
    import pymysql

    pymysql.install_as_MySQLdb()
DATABASES = {"default": DATABASE}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
