"""Celery and django-taskkit: for each setting why it is here, and what breaks without it."""

{% if cookiecutter.broker in ("redis", "rabbitmq") or cookiecutter.results == "redis" -%}
import ssl

{% endif -%}
from celery.schedules import crontab
from django_taskkit.routing import Lane, lanes

from config.settings.base import RELEASE, SITE_URL, TIME_ZONE, VAR_DIR, env

# --- The broker -------------------------------------------------------------------------------------------

{% if cookiecutter.broker == "embedded" -%}
CELERY_BROKER_URL = env.text("BROKER_URL", "filesystem://")
{%- else -%}
CELERY_BROKER_URL = env.required("BROKER_URL", "give {% if cookiecutter.broker == "redis" %}redis://host:6379/0, or rediss:// for TLS{% elif cookiecutter.broker == "rabbitmq" %}amqp://user:password@host:5672/vhost, or amqps:// for TLS{% else %}sqs://{% endif %}")
{%- endif %}
_transport_options: dict[str, object] = {}
{%- if cookiecutter.broker == "sqs" %}
if CELERY_BROKER_URL.startswith("sqs"):
    # Without: Celery asks the region in Virginia.
    _transport_options["region"] = env.required("AWS_REGION", "give the region of the queues, as in eu-central-1")
{%- elif cookiecutter.broker == "redis" %}
if CELERY_BROKER_URL.startswith("redis"):
    # Without the next line: Celery fetches in two steps, and a worker killed between them loses the message.
    CELERY_BROKER_TRANSPORT = "django_taskkit.transports.redis:Transport"
if CELERY_BROKER_URL.startswith("rediss"):
    # The server's certificate is verified, by the authorities of the system or the one in BROKER_CA. Without: Celery
    # wants it said, and what is found on the web says CERT_NONE, which encrypts for whoever sits in between.
    CELERY_BROKER_USE_SSL = {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": True,
        "ssl_ca_certs": env.text("BROKER_CA") or None,
    }
{%- elif cookiecutter.broker == "rabbitmq" %}
if CELERY_BROKER_URL.startswith("amqps"):
    # The server's certificate is verified, by the authorities of the system or the one in BROKER_CA, and so is its
    # name: None stands for the host of BROKER_URL. Without server_hostname: py-amqp takes a certificate for any name.
    CELERY_BROKER_USE_SSL = {
        "cert_reqs": ssl.CERT_REQUIRED,
        "ca_certs": env.text("BROKER_CA") or None,
        "server_hostname": None,
    }
{%- endif %}
if CELERY_BROKER_URL.startswith("filesystem"):
    # {% if cookiecutter.broker == "embedded" %}The embedded broker: files in a folder, no server.{% else %}For the tests: files in a folder, no server.{% endif %} Each message is synced to the disk before `delay` returns
    # and deleted only when its task is done. Celery's own filesystem transport, which is what you get without the
    # next line, deletes a message when it is received: a killed worker loses it.
    CELERY_BROKER_TRANSPORT = "django_taskkit.transports.filesystem:Transport"
    # 0.1: seconds between two looks for a message; a task starts that late at most. With kombu's 1 second
    # everything feels slow. A message is free again when its worker's process has ended.
    _transport_options.update(folder=str(VAR_DIR / "broker"), polling_interval=0.1)
# A worker that starts before its broker waits for it. Without: it exits, and a warning on Celery 5.
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True

# --- Lanes ------------------------------------------------------------------------------------------------

# What all names of queues begin with, so that another project on the same broker never gets these messages.
QUEUE_PREFIX = "{{ cookiecutter.project }}{% if cookiecutter.broker == "sqs" %}-{% else %}.{% endif %}"

# A lane is a queue, the tasks that go there, and a worker of its own: nobody's receipt waits behind an export. What
# comes of it are plain settings: CELERY_TASK_QUEUES, CELERY_TASK_ROUTES, CELERY_BROKER_TRANSPORT_OPTIONS (on Redis
# with a visibility timeout that is longer than any task here) and a few more; `manage.py taskkit routes` shows them.
# No other queue is made. Without: one queue for all, and a misspelt queue name makes another, which nobody reads.
# `manage.py taskkit worker LANE` starts the worker of a lane; a new lane needs one wherever the project is deployed,
# and tests/test_deployment.py says where.
globals().update(
    lanes(
        broker=CELERY_BROKER_URL,
        prefix=QUEUE_PREFIX,
        transport_options=_transport_options,
        # What a customer waits for. Processes, not threads: only there can a task that hangs be ended, and a crash
        # takes one task and not all.
        customers=Lane(
            tasks=["orders.tasks.send_receipt", "orders.tasks.book_shipment"],
            work="io",
            concurrency=env.number("WORKER_CONCURRENCY", 2),
        ),
        # What takes minutes: one after the other, none taken ahead, and longer limits than elsewhere.
        reports=Lane(
            tasks=[
                "orders.tasks.sales_report",
                "orders.tasks.export_orders",
                "orders.closing.*",
            ],
            concurrency=1,
            prefetch=1,
            soft_time_limit=300,
            time_limit=330,
        ),
        # An API that allows one request a second. Celery limits rates in each worker for itself, so there is one
        # worker, with one process: start no second.
        geocoding=Lane(tasks=["orders.geocoding.*"], work="io", concurrency=1),
        # What no other lane takes: thumbnails, and what beat sends.
        default=Lane(concurrency=env.number("WORKER_CONCURRENCY", 2)),
    )
)

# --- Messages and results ---------------------------------------------------------------------------------

# JSON only, in and out. Without: a pickled message runs code of whoever can write to the broker.
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_RESULT_SERIALIZER = "json"
{% if cookiecutter.results == "database" -%}
# A table, by django-celery-results. Chords count their members there. Without a backend: a chord is an error.
CELERY_RESULT_BACKEND = "django-db"
{%- else -%}
# Chords count their members there. Without a backend: a chord is an error.
CELERY_RESULT_BACKEND = env.required("RESULT_URL", "give redis://host:6379/2, or rediss:// for TLS")
if CELERY_RESULT_BACKEND.startswith("rediss"):
    # As for the broker: verified.
    CELERY_REDIS_BACKEND_USE_SSL = {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": True,
        "ssl_ca_certs": env.text("BROKER_CA") or None,
    }
# A connection that the network has dropped is noticed. Without: what waits for a result hangs for minutes.
CELERY_REDIS_SOCKET_KEEPALIVE = True
CELERY_REDIS_BACKEND_HEALTH_CHECK_INTERVAL = 25
{%- endif %}
# Results that nobody reads are not kept; tasks whose result somebody needs, as in a chord, say ignore_result=False.
# Without: a row for each run, which costs more than many a task.
CELERY_TASK_IGNORE_RESULT = True
# Seconds after which kept results are deleted{% if cookiecutter.results == "database" %}, by a task that beat sends each night{% endif %}.
# As long as a dead letter may wait for you: after that the chord of a member that died is forgotten, and requeueing
# the member no longer completes it.
CELERY_RESULT_EXPIRES = 30 * 24 * 3600

# --- Nothing lost -----------------------------------------------------------------------------------------

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

# --- Limits -----------------------------------------------------------------------------------------------

# A process is replaced after 1000 tasks, or when it holds more memory than this (kilobytes). Without: what leaks,
# leaks until the machine kills something.
CELERY_WORKER_MAX_TASKS_PER_CHILD = 1000
CELERY_WORKER_MAX_MEMORY_PER_CHILD = 400_000

# Seconds until a task gets SoftTimeLimitExceeded, and until it is killed. Without: one task that hangs keeps
# its process, and a warm stop of the worker, waiting for ever. The lane "reports" has others. What stops the workers
# gives each as long as `manage.py taskkit workers` says; tests/test_deployment.py compares.
CELERY_TASK_SOFT_TIME_LIMIT = 45
CELERY_TASK_TIME_LIMIT = 60
# On a cold stop (QUIT), running tasks get 10 seconds before their messages go back. Without: none.
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 10
# The same for tasks that wait for their retry. Without: an idle worker drops out at once.
CELERY_WORKER_ENABLE_SOFT_SHUTDOWN_ON_IDLE = True
{%- if cookiecutter.flower == "yes" %}

# Flower lives on these. Without: it shows no task. They cost a message for each step of a task.
CELERY_WORKER_SEND_TASK_EVENTS = True
CELERY_TASK_SEND_SENT_EVENT = True
{%- endif %}

# --- Beat -------------------------------------------------------------------------------------------------

CELERY_TIMEZONE = TIME_ZONE  # of the schedule below; without: UTC
# Of several beats one sends, and the others stand by; without django-taskkit, all send everything.
{% if cookiecutter.scheduler == "django-celery-beat" -%}
# The schedule is in the database, and edited in the admin; what is below is put there when beat starts, and wins.
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
{%- else -%}
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR_DIR / "beat-schedule")
{%- endif %}
# Tasks that are not in an app's tasks.py. Without: unknown tasks, which are dead letters.
CELERY_IMPORTS = ["orders.closing", "orders.geocoding", "orders.photos", "orders.reviews"]
CELERY_BEAT_SCHEDULE = {
    "nightly digest": {"task": "orders.tasks.nightly_digest", "schedule": crontab(hour=7, minute=0)},
    "monthly closing": {
        "task": "orders.closing.close_last_month",
        "schedule": crontab(day_of_month=1, hour=3, minute=0),
    },
    "old exports": {"task": "orders.tasks.delete_old_exports", "schedule": crontab(minute=30)},
    "old sessions": {"task": "orders.tasks.clear_sessions", "schedule": crontab(hour=4, minute=10)},
    # Dead letters that were recovered or discarded, and what else is old. Without: they stay for ever.
    "old dead letters": {"task": "taskkit.purge", "schedule": crontab(hour=4, minute=40)},
}

# --- Django's own tasks -------------------------------------------------------------------------------------

# Celery runs them as well: the same workers, lanes and dead letters, each by the path of its function. "outbox": the
# message is written in the transaction of whoever enqueues it. Without this setting: Django runs them at once, in the
# middle of the request.
TASKS = {
    "default": {
        "BACKEND": "django_taskkit.backends.CeleryBackend",
        "QUEUES": ["default"],  # as the lanes say
        "OPTIONS": {"outbox": True},
    }
}
# Django's tasks say nothing of retries; Celery is told here. OSError is a mail server that is down, slow or full.
CELERY_TASK_ANNOTATIONS = {"orders.reviews.invite_to_review": {"autoretry_for": (OSError,)}}

# --- django-taskkit ---------------------------------------------------------------------------------------

# Every key is optional; docs/settings.md of django-taskkit has them all.
TASKKIT = {
    # Kept with every dead letter: it tells failures of the old version from those of the new one.
    "RELEASE": RELEASE,
    # Alerts link to the dead letter in the admin.
    "SITE_URL": SITE_URL,
    # Where dead letters wait while neither database nor broker takes them. Without: a folder below /var/tmp,
    # which a container loses when it is replaced.
    "SPOOL_DIR": str(VAR_DIR / "spool"),
    # The queue for dead letters while the database is down, of this project alone.
    "SPOOL_QUEUE": f"{QUEUE_PREFIX}taskkit-spool",
    # Where workers, beat and relay leave their signs of life, which probes read. Without: a folder below /tmp.
    "HEALTH_DIR": env.text("TASKKIT_HEALTH_DIR", str(VAR_DIR / "health")),
    # What happens to a message that the broker does not take. This is the default: it waits in the database, and
    # the relay sends it. "always" sends every task that way, in the transaction of its caller.
    "OUTBOX": "on_failure",
    # Seconds; what is sent for later than that waits in the database, and the relay sends it when its time has come.
    # Without: a worker holds it in memory for days, and each restart hands it to another one.
    "LONG_DELAY": 900,
    # How often a task may be started that takes its process along. This is the default.
    "DELIVERY_LIMIT": 3,
{%- if cookiecutter.broker == "rabbitmq" %}
    # Where the lanes' queues put what the broker gives up; the relay makes dead letters of it.
    "INTAKE_QUEUES": [f"{QUEUE_PREFIX}taskkit.dead"] if CELERY_BROKER_URL.startswith("amqp") else [],
{%- endif %}
{%- if cookiecutter.observability == "prometheus" %}
    # What happens is counted, for Prometheus; ops/prometheus.yml says where it is asked for.
    "METRICS": ["prometheus"],
{%- elif cookiecutter.observability == "opentelemetry" %}
    # What happens is counted; config/telemetry.py sends the numbers.
    "METRICS": ["opentelemetry"],
{%- endif %}
}
