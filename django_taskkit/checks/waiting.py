"""taskkit.W009: dead letters that nobody looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core import checks
from django.db import DatabaseError, router, transaction

from django_taskkit.checks.registration import Messages
from django_taskkit.dlq import retention
from django_taskkit.dlq.models import DeadLetter
from django_taskkit.exceptions import ConfigurationError


def check_waiting(databases: Sequence[str] | None = None, **kwargs: Any) -> Messages:
    """taskkit.W009: more dead letters wait than ``DEAD_WARN_COUNT``, or for longer than ``DEAD_WARN_AGE_DAYS``.

    Only for the databases that ``check`` or ``migrate`` name: others must not be asked.
    """
    using = router.db_for_read(DeadLetter)
    if using not in (databases or ()):
        return []
    try:
        with transaction.atomic(using=using):
            found = retention.warnings()
    except (DatabaseError, ConfigurationError):
        return []  # no table yet, as before the first migrate; Django and E001 say the rest
    return [checks.Warning(warned.text, hint=warned.hint, id="taskkit.W009") for warned in found]
