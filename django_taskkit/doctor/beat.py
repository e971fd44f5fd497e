"""Is beat alive, and the only one?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from django.apps import apps

from django_taskkit import conf
from django_taskkit.beat import BeatState, state
from django_taskkit.doctor.finding import Finding, error, ok, unknown, warning
from django_taskkit.doctor.site import Site

BEAT = "beat"

LATE = 120.0
"""Seconds after which an entry that is due and not sent is worth a word."""

REMEDY = "Start one: celery -A <project> beat."


def beat(site: Site) -> Iterator[Finding]:
    """``beat``: one sends, and another one would wait; or nothing is scheduled."""
    if not _is_scheduled(site.app):
        yield ok(BEAT, "Nothing is scheduled, so no beat is needed.")
        return
    if conf.current().beat_lock == "off":
        yield unknown(
            BEAT,
            "TASKKIT['BEAT_LOCK'] is 'off', so nobody knows how many beats there are.",
            "Set it to 'database' or 'store': then one sends, any other waits, and both can be seen.",
        )
        return
    yield judged(state(site.app), time.time())


def judged(found: BeatState | None, now: float) -> Finding:
    if found is None:
        return error(BEAT, "No beat has ever been seen, and tasks are scheduled.", REMEDY)
    who = f"beat on {found.host} (pid {found.pid})"
    if found.is_stopped:
        return error(
            BEAT, f"The {who} was stopped at {found.seen_at:%Y-%m-%d %H:%M:%S} UTC, and no other runs.", REMEDY
        )
    if not found.is_alive:
        return error(BEAT, f"The {who} was last seen {found.age:.0f} s ago.", f"See its log. {REMEDY}")
    if found.next_due_at is not None and (late := now - found.next_due_at.timestamp()) > LATE:
        return warning(
            BEAT,
            f"The {who} is alive, and {late:.0f} s late with what was due next.",
            "See its log: does the broker take messages?",
        )
    return ok(BEAT, f"The {who} sends; a second one would wait ({found.lock}).")


def _is_scheduled(app: Any) -> bool:
    if app.conf.beat_schedule:
        return True
    if not apps.is_installed("django_celery_beat"):
        return False
    registry: Any = apps  # its models are not there for the type checker
    entries = registry.get_model("django_celery_beat", "PeriodicTask")
    return bool(entries.objects.filter(enabled=True).exclude(task="celery.backend_cleanup").exists())
