"""Settings of {{ cookiecutter.project_name }}.

What differs between machines comes from .env; .env.example explains it.
"""

from pathlib import Path

from celery.schedules import crontab
from django.core.exceptions import ImproperlyConfigured
from django_taskkit.routing import Lane, lanes

from config.environment import Environment

BASE_DIR = Path(__file__).resolve().parent.parent
env = Environment(BASE_DIR / ".env")

PROJECT_NAME = "{{ cookiecutter.project_name }}"

# Everything that the project writes. A local disk: neither SQLite nor the broker may be on a network share.
VAR_DIR = Path(env.text("VAR_DIR", str(BASE_DIR / "var"))).resolve()
MAIL_DIR = VAR_DIR / "mail"
MAIL_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)

# --- Django -----------------------------------------------------------------------------------------------

SECRET_KEY = env.text("SECRET_KEY")
if not SECRET_KEY:
    raise ImproperlyConfigured("SECRET_KEY is empty: copy .env.example to .env and fill it in.")

DEBUG = env.yes("DEBUG")
ALLOWED_HOSTS = env.names("ALLOWED_HOSTS")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django_taskkit",
    "orders",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
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
STATIC_ROOT = VAR_DIR / "static"

STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    # Files that a worker makes and the web hands out. With workers on other machines: storage that all of them
    # reach, S3 for example. No web server may serve this folder: the view asks who wants the file.
    "exports": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {
            "location": VAR_DIR / "exports",
            "file_permissions_mode": 0o600,
            "directory_permissions_mode": 0o700,
        },
    },
}

# Mails become files in var/mail. For real ones: the smtp backend, and EMAIL_HOST.
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = MAIL_DIR
DEFAULT_FROM_EMAIL = "shop@localhost"
DIGEST_TO = env.text("DIGEST_TO", "owner@localhost")

if not DEBUG:
    SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    SECURE_REDIRECT_EXEMPT = [r"^healthz$"]  # probes ask from inside, without HTTPS
    SECURE_HSTS_SECONDS = 3600  # raise it once HTTPS has worked for a while; browsers remember it
    # Whether all subdomains have HTTPS too is for the owner of the domain to say.
    SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
    if env.yes("BEHIND_PROXY"):
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}

# --- Celery: for each setting why it is here, and what breaks without it ----------------------------------

CELERY_BROKER_URL = env.text("BROKER_URL", "filesystem://")
_scheme = CELERY_BROKER_URL.partition(":")[0]
_transport_options = {}
if _scheme == "filesystem":
    # The embedded broker: files in a folder, no server. Each message is synced to the disk before `delay` returns
    # and deleted only when its task is done. Celery's own filesystem transport, which is what you get without the
    # next line, deletes a message when it is received: a killed worker loses it.
    CELERY_BROKER_TRANSPORT = "django_taskkit.transports.filesystem:Transport"
    # 0.1: seconds between two looks for a message; a task starts that late at most. With kombu's 1 second
    # everything feels slow. A message is free again when its worker's process has ended.
    _transport_options = {"folder": str(VAR_DIR / "broker"), "polling_interval": 0.1}
elif _scheme in ("redis", "rediss", "socket"):
    # Without the next line: Celery fetches in two steps, and a worker killed between them loses the message.
    CELERY_BROKER_TRANSPORT = "django_taskkit.transports.redis:Transport"
# A worker that starts before its broker waits for it. Without: it exits, and a warning on Celery 5.
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True

# A lane is a queue, the tasks that go there, and a worker of its own: nobody's receipt waits behind an export. What
# comes of it are plain settings: CELERY_TASK_QUEUES, CELERY_TASK_ROUTES, CELERY_BROKER_TRANSPORT_OPTIONS (on Redis
# with a visibility timeout that is longer than any task here) and a few more; `manage.py taskkit routes` shows them.
# No other queue is made. Without: one queue for all, and a misspelt queue name makes another, which nobody reads.
globals().update(
    lanes(
        broker=CELERY_BROKER_URL,
        transport_options=_transport_options,
        # What a customer waits for. Processes, not threads: only there can a task that hangs be ended, and a crash
        # takes one task and not all. SQLite does not mind: each has its own connection, and writers wait in line.
        customers=Lane(
            tasks=["orders.tasks.send_receipt", "orders.tasks.book_shipment"],
            work="io",
            concurrency=env.number("WORKER_CONCURRENCY", 2),
        ),
        # What takes minutes: one after the other, none taken ahead, and longer limits than elsewhere.
        reports=Lane(
            tasks=["orders.tasks.sales_report", "orders.tasks.export_orders"],
            concurrency=1,
            prefetch=1,
            soft_time_limit=300,
            time_limit=330,
        ),
        # What no other lane takes: here, what beat sends.
        default=Lane(concurrency=1),
    )
)

# JSON only, in and out. Without: a pickled message runs code of whoever can write to the broker.
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
# No result backend: what a task achieves is in the database, and what a page shows of it is put into the cache by
# the worker. Without: warnings, and a result backend that fills up.
CELERY_TASK_IGNORE_RESULT = True

# A message is acknowledged when its task is done. Without: it is gone when the task starts, and the task with
# it if the worker dies. The price: a task may run twice, so each one here looks first whether it is done.
CELERY_TASK_ACKS_LATE = True
# A pool process that is killed (out of memory) gives its message back. Without: the task is a dead letter the
# first time. With it, and without django-taskkit: a task that kills its process does so for ever. Here it is a
# dead letter after three starts (DELIVERY_LIMIT).
CELERY_TASK_REJECT_ON_WORKER_LOST = True
# A worker that loses its connection ends its tasks, whose messages go to another one. Without: both run them.
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
# A process takes one message ahead, no more. Without: four, which wait behind a slow task while others idle.
CELERY_WORKER_PREFETCH_MULTIPLIER = 1

# A process is replaced after 1000 tasks. Without: what leaks, leaks for ever.
CELERY_WORKER_MAX_TASKS_PER_CHILD = 1000

# Seconds until a task gets SoftTimeLimitExceeded, and until it is killed. Without: one task that hangs keeps
# its process, and a warm stop of the worker, waiting for ever. The lane "reports" has others; run.py waits for the
# longest, as does what `manage.py taskkit workers` writes.
CELERY_TASK_SOFT_TIME_LIMIT = 45
CELERY_TASK_TIME_LIMIT = 60
# On a cold stop (QUIT), running tasks get 10 seconds before their messages go back. Without: none.
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 10
# The same for tasks that wait for their retry. Without: an idle worker drops out at once.
CELERY_WORKER_ENABLE_SOFT_SHUTDOWN_ON_IDLE = True

# Django's LOGGING above is what counts. Without: Celery replaces the handlers of the root logger.
CELERY_WORKER_HIJACK_ROOT_LOGGER = False

CELERY_TIMEZONE = TIME_ZONE  # of the schedule below; without: UTC
CELERY_IMPORTS = ["config.health"]  # tasks outside of an app's tasks.py; without: an unknown task

# Of several beats one sends, and the others stand by; without django-taskkit, all send everything.
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR_DIR / "beat-schedule")
HEARTBEAT_INTERVAL = 10
CELERY_BEAT_SCHEDULE = {
    "heartbeat": {"task": "config.heartbeat", "schedule": HEARTBEAT_INTERVAL},
    "daily digest": {"task": "orders.tasks.daily_digest", "schedule": crontab(hour=7, minute=0)},
    "old exports": {"task": "orders.tasks.delete_old_exports", "schedule": crontab(minute=30)},
}

# --- django-taskkit ---------------------------------------------------------------------------------------

# Every key is optional; docs/settings.md of django-taskkit has them all.
TASKKIT = {
    # Kept with every dead letter: it tells failures of the old version from those of the new one.
    "RELEASE": env.text("RELEASE", "dev"),
    # Where dead letters wait while neither database nor broker takes them. Without: a folder below /var/tmp,
    # which a container loses when it is replaced.
    "SPOOL_DIR": str(VAR_DIR / "spool"),
    # Where workers, beat and relay leave their signs of life, which `manage.py taskkit health` reads. Without: a
    # folder below /tmp.
    "HEALTH_DIR": str(VAR_DIR / "health"),
    # What happens to a message that the broker does not take. This is the default: it waits in the database, and
    # the relay sends it. "always" sends every task that way, in the transaction of its caller.
    "OUTBOX": "on_failure",
    # How often a task may be started that takes its process along. This is the default.
    "DELIVERY_LIMIT": 3,
    # On RabbitMQ, where the lanes' queues put what the broker gives up; the relay makes dead letters of it.
    "INTAKE_QUEUES": ["taskkit.dead"] if _scheme in ("amqp", "amqps") else [],
}
