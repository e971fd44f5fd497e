"""Greenlets that share a process and one SQLite file."""

from __future__ import annotations

import os
import subprocess
import sys

import harness
import pytest

TWO_GREENLETS = """
import os
from gevent import monkey
monkey.patch_all()
import gevent
from gevent.event import Event

import django
from django.conf import settings
settings.configure(
    DATABASES={"default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["FILE"],
        "OPTIONS": {"timeout": 120, "transaction_mode": "IMMEDIATE"},
    }},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django_taskkit"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()
from django.core.management import call_command
from django.db import connections, transaction
from django.utils import timezone
call_command("migrate", verbosity=0)

from django_taskkit.dlq import recorder
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.models import DeadLetter, Reason
from django_taskkit.envelope import Envelope

locked, order = Event(), []

def task():
    with transaction.atomic():
        locked.set()
        gevent.sleep(0.5)  # asks some other service, say
    order.append("task")
    connections.close_all()

def death():
    locked.wait()
    envelope = Envelope(body=b"[]", content_type="application/json", content_encoding="utf-8", headers={"id": "1"})
    died = Death(envelope=envelope, task_name="t", reason=Reason.EXCEPTION, died_at=timezone.now())
    assert recorder.record(died)
    order.append("death")
    connections.close_all()

connections.close_all()
gevent.joinall([gevent.spawn(task), gevent.spawn(death)], raise_error=True)
print(order, DeadLetter.objects.count())
"""


def test_a_death_waits_for_a_greenlet_that_holds_the_lock_and_does_not_stop_it(tmp_path):
    """SQLite's own wait would stop both, until its time is up."""
    pytest.importorskip("gevent")
    done = subprocess.run(
        [sys.executable, "-c", TWO_GREENLETS],
        env={**os.environ, "FILE": str(tmp_path / "db.sqlite3"), "PYTHONPATH": str(harness.ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )

    assert done.stdout == "['task', 'death'] 1\n", done.stderr
