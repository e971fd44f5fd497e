"""Django settings of the tests.

``TASKKIT_TEST_DATABASE`` chooses the database: ``sqlite`` (the default), ``postgresql`` or ``mariadb``. Where a
server is, and who asks, comes from ``TASKKIT_TEST_POSTGRESQL_HOST``, ``_PORT``, ``_USER``, ``_PASSWORD``, and the
same for ``MARIADB``. ``TASKKIT_TEST_SQLITE`` names the file, or is ``:memory:``, which no worker process can share.
"""

import os
import tempfile
from pathlib import Path

import tests.celery_app  # noqa: F401  (makes it the default app)

DATABASE = os.environ.get("TASKKIT_TEST_DATABASE", "sqlite")

# A database of its own for each test run, so that two runs can go on at once.
TEST_NAME = f"taskkit_test_{os.getpid()}"


def _server(kind, **defaults):
    return {
        key: os.environ.get(f"TASKKIT_TEST_{kind}_{key}", default)
        for key, default in {"HOST": "127.0.0.1", "USER": "root", "PASSWORD": "", **defaults}.items()
    }


def _database(kind):
    if kind == "sqlite":
        name = os.environ.get("TASKKIT_TEST_SQLITE", str(Path(tempfile.gettempdir(), f"{TEST_NAME}.sqlite3")))
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": name,
            "TEST": {"NAME": name},
            "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
        }
    if kind == "postgresql":
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "TEST": {"NAME": TEST_NAME},
            **_server("POSTGRESQL", PORT="5432"),
        }
    if kind == "mariadb":
        # PyMySQL in the place of mysqlclient, which has no wheels for Linux and needs a compiler and headers.
        import pymysql

        pymysql.install_as_MySQLdb()
        return {
            "ENGINE": "django.db.backends.mysql",
            "NAME": TEST_NAME,
            "TEST": {"NAME": TEST_NAME, "CHARSET": "utf8mb4"},
            "OPTIONS": {"charset": "utf8mb4"},
            **_server("MARIADB", PORT="3306"),
        }
    raise ValueError(f"TASKKIT_TEST_DATABASE is {kind!r}; it must be sqlite, postgresql or mariadb")


SECRET_KEY = "for the tests only"
ALLOWED_HOSTS = ["*"]
DATABASES = {"default": _database(DATABASE)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_taskkit",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

ROOT_URLCONF = "tests.urls"
STATIC_URL = "/static/"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("vi", "Vietnamese"), ("zh-hant", "Traditional Chinese")]

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
