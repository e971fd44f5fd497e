"""Pause, resume, cancel: from any process, at any moment. Each is one conditional UPDATE."""

from __future__ import annotations

from typing import Any

from django.db import router
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from django_taskkit.dlq.models import DeadLetter
from django_taskkit.dlq.redrive import canary
from django_taskkit.dlq.redrive.model import Redrive
from django_taskkit.dlq.redrive.progress import OPEN
from django_taskkit.dlq.text import bounded

State = Redrive.State

PAUSABLE = (State.RUNNING,)
RESUMABLE = (State.PAUSED, State.STOPPED)
CANCELLABLE = OPEN


def pause(redrive: Redrive, by: Any = None) -> bool:
    """Let it send nothing more until it is resumed; False if it wasn't running."""
    return bool(_rows(redrive, PAUSABLE).update(state=State.PAUSED, why=_who(_("Paused by %s."), _("Paused."), by)))


def resume(redrive: Redrive) -> bool:
    """Let one go on that was paused or has stopped; False if it was neither.

    A canary that has stopped goes on with its next step: who resumes it knows of the failures that there were.
    """
    row = _rows(redrive, RESUMABLE).first()
    if row is None:
        return False
    changes: dict[str, Any] = {"state": State.RUNNING, "why": "", "ended_at": None}
    if row.state == State.STOPPED:
        changes["forgiven"] = row.same_again
        if not canary.is_over(row) and row.sent >= canary.UP_TO[row.step]:
            changes["step"] = row.step + 1
    return bool(_rows(redrive, RESUMABLE).filter(state=row.state).update(**changes))


def cancel(redrive: Redrive, by: Any = None) -> bool:
    """Send no more of it, ever; False if it had ended. What was sent already runs; the rest stays dead."""
    why = _who(_("Cancelled by %s."), _("Cancelled."), by)
    return bool(_rows(redrive, CANCELLABLE).update(state=State.CANCELLED, why=why, ended_at=timezone.now()))


def stop(redrive: Redrive, why: str) -> bool:
    """Stop it by itself; False if it wasn't running any more."""
    return bool(_rows(redrive, PAUSABLE).update(state=State.STOPPED, why=why, ended_at=timezone.now()))


def _rows(redrive: Redrive, states: tuple[Redrive.State, ...]) -> QuerySet[Redrive]:
    return Redrive.objects.using(router.db_for_write(DeadLetter)).filter(pk=redrive.pk, state__in=states)


def _who(named: str, unnamed: str, by: Any) -> str:
    username = getattr(by, "get_username", None)
    name = bounded(username() if username else by)
    return named % name if name else unnamed
