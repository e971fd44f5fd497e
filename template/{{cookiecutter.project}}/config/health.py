"""Whether the site works: web, database, the way of a task from beat to a worker, and the relay."""

import json
import time

from celery import shared_task
from django.conf import settings
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET

HEARTBEAT = settings.VAR_DIR / "heartbeat"
RELAY = settings.VAR_DIR / "relay.json"


# A late heartbeat is of no use, so it expires; and one that expired is no task that anyone has to requeue.
@shared_task(name="config.heartbeat", expires=30, dead_letter=False)
def heartbeat() -> None:
    """Show that beat sends, the broker delivers and a worker runs."""
    HEARTBEAT.touch()


@require_GET
def healthz(request: HttpRequest) -> JsonResponse:
    """Answer 200 while web and database work.

    The state of tasks and relay is only told: restarting the web process because a worker is down helps nobody.
    """
    others = {"tasks": tasks_state(), "relay": relay_state()}
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as exc:
        return JsonResponse({"web": "ok", "database": str(exc), **others}, status=503)
    return JsonResponse({"web": "ok", "database": "ok", **others})


def tasks_state() -> str:
    """Say "ok", or for how long no heartbeat has come through."""
    try:
        age = time.time() - HEARTBEAT.stat().st_mtime
    except FileNotFoundError:
        return "no heartbeat yet"
    return "ok" if age < 6 * settings.HEARTBEAT_INTERVAL else f"no heartbeat for {age:.0f} seconds"


def relay_state() -> str:
    """Say "ok", what keeps the relay from working, or for how long nothing was heard of it."""
    try:
        age = time.time() - RELAY.stat().st_mtime
        errors = json.loads(RELAY.read_text())["errors"]
    except FileNotFoundError:
        return "no relay yet"
    if age > 120:  # with the broker down, a round takes half a minute
        return f"no relay for {age:.0f} seconds"
    return "; ".join(errors) or "ok"
