"""For how long a message has been waiting, by its headers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from celery import Celery

from django_taskkit.envelope import SENT_AT_HEADER
from django_taskkit.outbox.delays import seconds_until


class Unknown(Enum):
    """Why a message has no age."""

    NOT_DUE = "its time has not come"
    NOT_SAID = "it does not say when it was sent"


def age_of(app: Celery, raw: str | bytes) -> float | Unknown:
    """Return the seconds that a message of a virtual transport (kombu's JSON) has been waiting since it was due."""
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        return Unknown.NOT_SAID
    return age_by(app, message.get("headers") if isinstance(message, Mapping) else None)


def age_by(app: Celery, headers: Any) -> float | Unknown:
    """Return the seconds that a message with ``headers`` has been waiting since it was due."""
    if not isinstance(headers, Mapping):
        return Unknown.NOT_SAID
    eta = headers.get("eta")
    until_due = seconds_until(eta, app)
    if until_due > 0:
        return Unknown.NOT_DUE
    sent_at = headers.get(SENT_AT_HEADER)
    if isinstance(sent_at, bool) or not isinstance(sent_at, (int, float)) or not math.isfinite(sent_at):
        return Unknown.NOT_SAID
    since_sent = time.time() - sent_at
    return max(0.0, min(since_sent, -until_due) if eta else since_sent)


def oldest_of(ages: Iterable[float | Unknown]) -> float | None:
    """Return the greatest age that is known."""
    return max((age for age in ages if not isinstance(age, Unknown)), default=None)
