"""Whether the site works: the web process, its database, and the way of a task from beat to a worker."""

import time

from celery import shared_task
from django.conf import settings
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET

HEARTBEAT = settings.VAR_DIR / "heartbeat"


# A late heartbeat is of no use, so it expires; and one that expired is no task that anyone has to requeue.
@shared_task(name="config.heartbeat", expires=30, dead_letter=False)
def heartbeat() -> None:
    """Show that beat sends, the broker delivers and a worker runs."""
    HEARTBEAT.touch()


@require_GET
def healthz(request: HttpRequest) -> JsonResponse:
    """Answer 200 while web and database work.

    The state of the tasks is only told: restarting the web process because a worker is down helps nobody.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as exc:
        return JsonResponse({"web": "ok", "database": str(exc), "tasks": tasks_state()}, status=503)
    return JsonResponse({"web": "ok", "database": "ok", "tasks": tasks_state()})


def tasks_state() -> str:
    """Say "ok", or for how long no heartbeat has come through."""
    try:
        age = time.time() - HEARTBEAT.stat().st_mtime
    except FileNotFoundError:
        return "no heartbeat yet"
    return "ok" if age < 6 * settings.HEARTBEAT_INTERVAL else f"no heartbeat for {age:.0f} seconds"
