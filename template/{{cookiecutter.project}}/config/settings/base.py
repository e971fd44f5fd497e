"""What holds everywhere. What differs between machines comes from the environment; .env.example explains it."""

from pathlib import Path
from typing import Any
{% if cookiecutter.database != "sqlite" %}
import dj_database_url
{%- endif %}
from django.core.exceptions import ImproperlyConfigured

from config.environment import Environment

BASE_DIR = Path(__file__).resolve().parent.parent.parent
env = Environment()

PROJECT_NAME = "{{ cookiecutter.project_name }}"
# The version that runs here; kept with every dead letter{% if cookiecutter.observability == "sentry" %}, and told Sentry{% endif %}.
RELEASE = env.text("RELEASE", "dev")
# Where the site is reached; alerts and mails link there.
SITE_URL = env.text("SITE_URL")

# Everything that the project writes. A local disk{% if cookiecutter.database == "sqlite" or cookiecutter.broker == "embedded" %}: neither SQLite nor the broker may be on a network share{% endif %}.
VAR_DIR = Path(env.text("VAR_DIR", str(BASE_DIR / "var"))).resolve()
VAR_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)

SECRET_KEY = env.required("SECRET_KEY", "copy .env.example to .env and fill it in")
ALLOWED_HOSTS = env.names("ALLOWED_HOSTS")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
{%- if cookiecutter.scheduler == "django-celery-beat" %}
    "django_celery_beat",
{%- endif %}
{%- if cookiecutter.results == "database" %}
    "django_celery_results",
{%- endif %}
    "django_taskkit",
    "orders",
]

MIDDLEWARE = [
    # First, so that every line of the log says which request, and the tasks that it sends carry it on.
    "django_taskkit.observability.middleware.RequestIDMiddleware",
    "django.middleware.security.SecurityMiddleware",
    # Serves static files from gunicorn; without it, they need a web server of their own.
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
WSGI_APPLICATION = "config.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "config.context.project",
            ],
        },
    }
]

{% if cookiecutter.database == "sqlite" -%}
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": VAR_DIR / "db.sqlite3",
        "OPTIONS": {
            # Web and workers write at the same time. WAL lets readers go on meanwhile; a writer waits up to
            # 20 seconds for its turn; IMMEDIATE makes it wait at the start of its transaction. Without it, a
            # transaction that reads first and writes later fails at once with "database is locked".
            "init_command": "PRAGMA journal_mode=WAL",
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
        },
        # A file, as the worker in the tests has a connection of its own, which needs to see the same rows.
        "TEST": {"NAME": VAR_DIR / "test.sqlite3"},
    }
}
{%- else -%}
DATABASES = {
    "default": dj_database_url.parse(
        env.required("DATABASE_URL", "give {% if cookiecutter.database == "postgresql" %}postgresql{% else %}mysql{% endif %}://user:password@host/name"),
        # Seconds that a web process keeps its connection for the next request, and asks first whether it still works.
        conn_max_age=60,
        conn_health_checks=True,
    )
}
{%- if cookiecutter.database == "mariadb" %}
# Tables and comparisons in full Unicode, errors in place of values cut to fit, and each statement sees what others
# have committed. Without the last: a transaction that waited for a lock reads what was there before.
DATABASES["default"].setdefault("OPTIONS", {}).update(
    charset="utf8mb4",
    init_command="SET sql_mode='STRICT_TRANS_TABLES'",
    isolation_level="read committed",
)
{%- endif %}
{%- endif %}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# What tasks have made for pages, and how far they are: web and workers must see the same. Django's default, which
# is the memory of each process, shows a progress bar for ever: the worker writes where the web doesn't look.
CACHE_URL = env.text("CACHE_URL", "db://")
if CACHE_URL.startswith("db:"):
    # A table in the database, no server; `manage.py createcachetable` makes it, and without it every report says
    # that it can't be started. Beyond MAX_ENTRIES, a third of the table is deleted, fresh or not, in the order of
    # its keys. Django's default of 300 would take away reports, and the progress of tasks that run.
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.db.DatabaseCache",
            "LOCATION": "django_cache",
            "OPTIONS": {"MAX_ENTRIES": 100_000},
        }
    }
elif CACHE_URL.startswith(("redis:", "rediss:")):
    # Quicker, and for several machines. It may throw away what it has no room for (maxmemory-policy allkeys-lru);
    # the broker's Redis must not, so with a limit on memory these are two servers.
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": CACHE_URL}}
    if CACHE_URL.startswith("rediss:"):
        # The server's certificate and its name are verified, by the authorities of the system or the one in BROKER_CA.
        CACHES["default"]["OPTIONS"] = {"ssl_check_hostname": True, "ssl_ca_certs": env.text("BROKER_CA") or None}
else:
    raise ImproperlyConfigured(
        f"CACHE_URL begins with {CACHE_URL.partition(':')[0]!r}; give redis://, rediss://, or db:// for a table."
    )

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]

LANGUAGE_CODE = "en"
TIME_ZONE = "{{ cookiecutter.timezone }}"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"

# Files that workers and web make and hand out. With workers on other machines: storage that all of them reach. No
# web server may serve these folders: views ask who wants the file.
{%- if cookiecutter.deployment == "kubernetes" or cookiecutter.broker == "sqs" %}
MEDIA_BUCKET = env.text("MEDIA_BUCKET")
# Where boto3 looks by itself, for the bucket{% if cookiecutter.broker == "sqs" %} and for the queues{% endif %}. Without: it asks the role of the machine, and Amazon.
env.hand_on("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3")
{%- endif %}


def _folder(name: str, *, replaced: bool = False) -> dict:
{%- if cookiecutter.deployment == "kubernetes" or cookiecutter.broker == "sqs" %}
    if MEDIA_BUCKET:
        # Nothing is public: views hand files out.
        bucket = {
            "bucket_name": MEDIA_BUCKET,
            "location": name,
            "region_name": env.text("AWS_REGION") or None,
            "file_overwrite": replaced,
            "default_acl": None,
        }
        return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": bucket}
{%- endif %}
    options = {
        "location": VAR_DIR / name,
        "file_permissions_mode": 0o600,
        "directory_permissions_mode": 0o700,
    }
    backend = "orders.storage.ReplacingStorage" if replaced else "django.core.files.storage.FileSystemStorage"
    return {"BACKEND": backend, "OPTIONS": options}


STORAGES = {
    "default": _folder("media"),
    "exports": _folder("exports"),
    # Made of photos, and made anew under the same name where a task runs twice. Of all others, none is overwritten.
    "thumbnails": _folder("media/thumbnails", replaced=True),
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

DEFAULT_FROM_EMAIL = env.text("DEFAULT_FROM_EMAIL", "{{ cookiecutter.project }}@localhost")
# Who gets the daily digest.
DIGEST_TO = env.text("DIGEST_TO", "owner@localhost")
# Where the task `locate_customer` asks for places; empty: customers have none.
GEOCODER_URL = env.text("GEOCODER_URL")
{%- if cookiecutter.observability == "opentelemetry" %}
# Where config/telemetry.py sends numbers and traces; empty: nowhere.
OTLP_ENDPOINT = env.text("OTEL_EXPORTER_OTLP_ENDPOINT")
{%- elif cookiecutter.observability == "prometheus" %}
# django-taskkit looks for it when somebody asks for /metrics.
env.hand_on("TASKKIT_METRICS_TOKEN")
{%- endif %}

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
        # A line of JSON for each record, with task, attempt and request.
        "json": {"()": "django_taskkit.observability.logs.JSONFormatter"},
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.text("LOG_LEVEL", "INFO")},
}
