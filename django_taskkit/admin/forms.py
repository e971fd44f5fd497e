"""What an operator may say when dead letters are requeued or discarded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from celery import Celery
from celery.app import app_or_default
from django import forms
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_taskkit.dlq.models import DeadLetter

LONGEST_DELAY = timedelta(days=365)
"""Further away is a typing error."""


class RequeueForm(forms.Form):
    """How to put messages back; everything may be left empty."""

    queue = forms.CharField(
        label=gettext_lazy("Queue"),
        max_length=255,
        required=False,
        help_text=gettext_lazy("Leave empty to put each message back on the queue it came from."),
    )
    countdown = forms.IntegerField(
        label=gettext_lazy("Delay"),
        min_value=0,
        max_value=int(LONGEST_DELAY.total_seconds()),
        required=False,
        help_text=gettext_lazy("Seconds until the tasks may run; empty for at once."),
    )
    not_before = forms.DateTimeField(
        label=gettext_lazy("Not before"),
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    reset_results = forms.BooleanField(
        label=gettext_lazy("Reset the result"),
        required=False,
        help_text=gettext_lazy("Its state is PENDING until the task ends, where it is FAILURE otherwise."),
    )
    despite_preflight = forms.BooleanField(
        label=gettext_lazy("Also those that will likely fail"),
        required=False,
        help_text=gettext_lazy("Those that are red above are left out otherwise."),
    )
    even_if_ran = forms.BooleanField(
        label=gettext_lazy("Also those whose task had ended well"),
        required=False,
        help_text=gettext_lazy("Only what follows was lost. These tasks will do their work once more."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        zone = timezone.get_current_timezone_name()
        self.fields["not_before"].help_text = _("Or a time (%(zone)s) from which on they may run.") % {"zone": zone}

    def clean_not_before(self) -> datetime | None:
        """Take a time in the year to come."""
        moment: datetime | None = self.cleaned_data["not_before"]
        if moment is None:
            return None
        now = timezone.now() if timezone.is_aware(moment) else datetime.now()
        if not now < moment < now + LONGEST_DELAY:
            raise forms.ValidationError(_("Give a time in the future, at most a year from now."))
        return moment

    def clean(self) -> dict[str, Any]:
        """Take one delay, not two."""
        given: dict[str, Any] = super().clean() or self.cleaned_data
        if given.get("countdown") is not None and given.get("not_before"):
            raise forms.ValidationError(_("Give a delay or a time, not both."))
        return given

    def clean_queue(self) -> str:
        """Take a queue that is declared or that a dead letter came from: a typo would make one that nobody reads."""
        name: str = self.cleaned_data["queue"].strip()
        declared = _declared_queues(app_or_default())
        if name and name not in declared and not DeadLetter.objects.filter(queue=name).exists():
            raise forms.ValidationError(
                _("No queue of this name is known here; known are: %s.") % ", ".join(sorted(declared))
            )
        return name


class DiscardForm(forms.Form):
    """Why messages are given up."""

    note = forms.CharField(
        label=gettext_lazy("Note"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=gettext_lazy("Kept in the history of each dead letter."),
    )


def _declared_queues(app: Celery) -> set[str]:
    """Return the queues that the project names, in ``task_queues`` or as the target of a route."""
    routes = app.conf.task_routes or ()
    names: set[Any] = set(app.amqp.queues)
    for mapping in [routes] if isinstance(routes, Mapping) else routes:
        if isinstance(mapping, Mapping):
            for target in mapping.values():
                queue = target.get("queue") if isinstance(target, Mapping) else target
                names.add(getattr(queue, "name", queue))
    return {name for name in names if isinstance(name, str)}
