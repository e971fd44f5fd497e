"""Send a few, see whether they succeed, send more: and stop when the same failure comes back.

Up to the step of 25, one message that dies of the very failure that it died of before stops the redrive. From then on,
and for the rest that follows the last step, it takes more than 5 % of those that have ended: of thousands some may
still fail. A different failure counts as *failed again* and stops nothing, unless none of the first six succeeds.
"""

from __future__ import annotations

from django.db import router
from django.db.models import F
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_taskkit.dlq.models import DeadLetter
from django_taskkit.dlq.redrive.model import Redrive, RedriveMember

STEPS = (1, 5, 25, 125, 625)
UP_TO = tuple(sum(STEPS[: number + 1]) for number in range(len(STEPS)))
"""How many may have been sent by the end of each step."""

STRICT = 3
"""Steps in which one failure of the same kind is enough."""

TOLERATED = 0.05
"""The part of those that have ended that may fail in the same way afterwards."""


def is_over(redrive: Redrive) -> bool:
    """Say whether nothing is waited for any more."""
    return not redrive.canary or redrive.step >= len(STEPS)


def room(redrive: Redrive, limit: int) -> int:
    """Return how many the step still lets through, at most ``limit``."""
    return limit if is_over(redrive) else max(0, min(limit, UP_TO[redrive.step] - redrive.sent))


def running(redrive: Redrive) -> int:
    """Return how many were sent and have not ended."""
    return max(0, redrive.sent - redrive.recovered - redrive.failed_again)


def is_complete(redrive: Redrive) -> bool:
    """Say whether all that the step lets through has been sent and has ended."""
    return not is_over(redrive) and redrive.sent >= UP_TO[redrive.step] and not running(redrive)


def advance(redrive: Redrive) -> None:
    """Go on to the next step."""
    rows = Redrive.objects.using(router.db_for_write(DeadLetter)).filter(pk=redrive.pk, step=redrive.step)
    rows.update(step=F("step") + 1)
    redrive.step += 1


def objection(redrive: Redrive) -> str:
    """Return why the redrive has to stop, in a sentence; empty if it may go on."""
    if not redrive.canary:
        return ""
    same = redrive.same_again - redrive.forgiven
    ended = redrive.recovered + redrive.failed_again
    if same > 0 and (redrive.step < STRICT or same > TOLERATED * ended):
        return _same(redrive, same)
    if is_complete(redrive) and redrive.step > 0 and not redrive.recovered:
        return _("None of the %(sent)d messages that were sent succeeded.") % {"sent": redrive.sent}
    return ""


def _same(redrive: Redrive, same: int) -> str:
    text = ngettext(
        "%(same)d of the %(sent)d messages that were sent died of the same failure again",
        "%(same)d of the %(sent)d messages that were sent died of the same failure again",
        same,
    ) % {"same": same, "sent": redrive.sent}
    failed = RedriveMember.objects.using(router.db_for_write(DeadLetter)).filter(
        redrive=redrive, state=RedriveMember.State.FAILED, dead_letter__fingerprint=F("fingerprint")
    )
    columns = ("dead_letter__task_name", "dead_letter__exception_class", "fingerprint")
    example = failed.order_by("-pk").values_list(*columns).first()
    if example is None:
        return f"{text}."
    task, exception, fingerprint = example
    name = _("fingerprint")  # not within the f-string: makemessages would not find it there
    return f"{text}: {task}, {exception or '-'} ({name} {fingerprint[:12]})."
