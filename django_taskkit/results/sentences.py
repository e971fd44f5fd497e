"""How a task stands, in the words of a page. What went wrong inside is never among them."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.utils.timesince import timeuntil
from django.utils.timezone import now
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_taskkit.results.state import Status, TaskState

UNKNOWN: Final = gettext_lazy("Nothing is known about this any more.")
"""What is said of a task that has left no trace, or that is not for whoever asks."""

_SENTENCES: Final = {
    Status.HIT: gettext_lazy("Done"),
    Status.STALE: gettext_lazy("A newer version could not be made."),
    Status.PENDING: gettext_lazy("Waiting to start"),
    Status.RUNNING: gettext_lazy("Working"),
    Status.RETRYING: gettext_lazy("It did not work yet and will be tried again."),
    Status.FAILED: gettext_lazy("This could not be finished."),
    Status.LOST: gettext_lazy("Nothing has been heard of this for too long."),
    Status.REFUSED: gettext_lazy("This can't be started at the moment."),
    Status.ABSENT: UNKNOWN,
}

_MINUTE: Final = 90
"""Seconds from which a time is told in minutes; Django's own ``timeuntil`` knows nothing shorter."""


def name_of(status: Status) -> str:
    """Return what a person is told of ``status`` alone."""
    return str(_SENTENCES[status])


def sentence(state: TaskState, status: Status) -> str:
    """Return what a person is told of ``state``.

    Args:
        status: what counts: that of the run, where an older value is shown meanwhile.
    """
    if status is Status.RUNNING and state.progress is not None and state.progress.message:
        return state.progress.message
    if status is Status.RETRYING and state.retry_after:
        return _("It did not work yet. The next attempt is in %(time)s.") % {"time": duration(state.retry_after)}
    if status is Status.FAILED and state.dead_letter in ("dead", "held"):
        return _("This could not be finished. It has been put aside, to be looked at and started again.")
    return name_of(status)


def duration(seconds: int) -> str:
    """Return ``seconds`` as a person says it."""
    if seconds < _MINUTE:
        return ngettext("%(seconds)d second", "%(seconds)d seconds", seconds) % {"seconds": seconds}
    at = now()
    return timeuntil(at + timedelta(seconds=seconds), at, depth=1)
