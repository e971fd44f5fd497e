"""The site of test_logs.py: each view starts tasks, and says so."""

from __future__ import annotations

import logging
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "logs_settings")

from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path
from logs_app import app, both, dies, say

logger = logging.getLogger("shop")


def start(request):
    """A chain with a retry in it, a chord, one by way of the outbox, one on commit, and one that dies."""
    from celery import chain, chord

    logger.info("said by the view")
    chain(say.si("first", fail=1, password="hunter2"), say.si("last")).delay()
    chord([say.si("left"), say.si("right")])(both.s())
    say.apply_async(("outbox",), outbox=True)
    say.delay_on_commit("commit")
    dies.delay(request.GET["folder"])
    return HttpResponse("started")


def again(request):
    from django_taskkit.dlq import requeue
    from django_taskkit.models import DeadLetter

    report = requeue(DeadLetter.objects.all())
    return HttpResponse(f"{report.requeued} {report.refused}")


urlpatterns = [path("start", start), path("again", again)]
application = get_asgi_application()
app.set_default()  # each request has a thread of its own, and tests.settings, read by now, an app for the unit tests
