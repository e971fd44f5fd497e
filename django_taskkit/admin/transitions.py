"""Requeue and discard from the admin: confirm with the count, do it, say what was done, log who did it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import django
from celery import Celery
from celery.app import app_or_default
from django import forms
from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import Max, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_taskkit.dlq import transitions
from django_taskkit.dlq.models import DeadLetter, Status
from django_taskkit.exceptions import NoAppError

SHOWN_REFUSALS = 5
"""Reasons that are shown one by one; a bulk action may have thousands."""


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
        max_value=int(timedelta(days=365).total_seconds()),
        required=False,
        help_text=gettext_lazy("Seconds until the tasks may run; empty for at once."),
    )

    even_if_ran = forms.BooleanField(
        label=gettext_lazy("Also those whose task had ended well"),
        required=False,
        help_text=gettext_lazy("Only what follows was lost. These tasks will do their work once more."),
    )

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


@dataclass(frozen=True)
class Verb:
    """Something an operator does with dead letters."""

    name: str
    form: type[forms.Form]
    allowed: tuple[Status, ...]
    run: Callable[..., Any]
    title: Any
    explanation: Any
    button: Any

    def statuses(self, force: bool) -> tuple[Status, ...]:
        """Return the statuses of letters that it applies to."""
        return (*self.allowed, Status.REQUEUED) if force else self.allowed


REQUEUE = Verb(
    name="requeue",
    form=RequeueForm,
    allowed=(Status.DEAD,),
    run=transitions.requeue,
    title=gettext_lazy("Requeue dead letters"),
    explanation=gettext_lazy(
        "The same message is sent again under the same task id, and all its retries are available again."
    ),
    button=gettext_lazy("Requeue"),
)
DISCARD = Verb(
    name="discard",
    form=DiscardForm,
    allowed=(Status.DEAD, Status.HELD),
    run=transitions.discard,
    title=gettext_lazy("Discard dead letters"),
    explanation=gettext_lazy("The tasks will not run. The dead letters stay in the list as discarded."),
    button=gettext_lazy("Discard"),
)


def confirm_or_run(
    model_admin: ModelAdmin[DeadLetter],
    request: HttpRequest,
    queryset: QuerySet[DeadLetter],
    verb: Verb,
    *,
    back: str,
    force: bool = False,
) -> TemplateResponse | None:
    """Ask for confirmation, or do it when it was given; None when it was done.

    ``back`` is where Cancel leads. With ``force``, letters that were requeued and have not ended can be chosen as well.
    """
    confirmed = "confirmed" in request.POST
    form = verb.form(request.POST if confirmed else None)
    if confirmed and form.is_valid():
        run(model_admin, request, _as_confirmed(request, queryset), verb, form.cleaned_data, force)
        return None
    able = queryset.filter(status__in=verb.statuses(force))
    count = able.count()
    ran = able.filter(body_ran=True).count() if "even_if_ran" in form.fields else 0
    if not ran:
        form.fields.pop("even_if_ran", None)
    context = {
        **model_admin.admin_site.each_context(request),
        "title": verb.title,
        "opts": model_admin.model._meta,
        "media": model_admin.media,
        "verb": verb,
        "form": form,
        "count": count,
        "question": _question(verb, count),
        "ran": ran,
        "skipped": queryset.count() - count,
        "until": _until(queryset),
        "examples": able.defer(*transitions.HEAVY)[:10],
        "back": back,
        "unfinished": force and able.filter(status=Status.REQUEUED).exists(),
        "breadcrumbs_are_a_list": django.VERSION >= (6, 1),
        "repeated": [
            (name, value)
            for name in ("action", "select_across", "index", "_selected_action")
            for value in request.POST.getlist(name)
        ],
    }
    return TemplateResponse(request, "admin/django_taskkit/deadletter/confirm.html", context)


def run(
    model_admin: ModelAdmin[DeadLetter],
    request: HttpRequest,
    queryset: QuerySet[DeadLetter],
    verb: Verb,
    options: dict[str, Any],
    force: bool = False,
) -> None:
    """Carry ``verb`` out for every row that it applies to, and tell the operator."""
    given = {name: value for name, value in options.items() if value not in (None, "")}
    done, not_tried = 0, 0
    refused: list[transitions.Refusal] = []
    chunks = _chunks(queryset.filter(status__in=verb.statuses(force)))
    for rows in chunks:
        try:
            report = verb.run(rows, by=request.user, force=force, **given)
        except NoAppError as exc:
            model_admin.message_user(request, str(exc), messages.ERROR)
            return
        refused += report.refused
        left = {refusal.dead_letter.pk for refusal in report.refused}
        tried = len(rows) - getattr(report, "not_tried", 0)
        changed = [row for row in rows[:tried] if row.pk not in left]
        done += len(changed)
        if changed:
            LogEntry.objects.log_actions(request.user.pk, changed, CHANGE, verb.name.title())  # type: ignore[arg-type]
        if tried < len(rows):
            not_tried = len(rows) - tried + sum(len(rest) for rest in chunks)
    if done or not (refused or not_tried):
        model_admin.message_user(request, _done(verb, done), messages.SUCCESS if done else messages.WARNING)
    for refusal in refused[:SHOWN_REFUSALS]:
        text = _("Nothing was done with %(task)s (%(status)s): %(reason)s") % {
            "task": refusal.dead_letter,
            "status": refusal.dead_letter.get_status_display(),
            "reason": refusal.reason,
        }
        model_admin.message_user(request, text, messages.ERROR)
    if left_alone := max(0, len(refused) - SHOWN_REFUSALS) + not_tried:
        text = ngettext(
            "%(count)d more dead letter was left as it is.",
            "%(count)d more dead letters were left as they are.",
            left_alone,
        ) % {"count": left_alone}
        model_admin.message_user(request, text, messages.ERROR)


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


def _until(queryset: QuerySet[DeadLetter]) -> str:
    last = queryset.aggregate(last=Max("died_at"))["last"]
    return last.isoformat() if last else ""


def _as_confirmed(request: HttpRequest, queryset: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
    """Leave out what died after the page was shown: it was not in the count that was confirmed."""
    try:
        until = parse_datetime(request.POST.get("until", ""))
    except ValueError:
        until = None
    return queryset if until is None else queryset.filter(died_at__lte=until)


def _chunks(queryset: QuerySet[DeadLetter]) -> Iterator[list[DeadLetter]]:
    last = 0
    while True:
        rest = queryset.filter(pk__gt=last).order_by("pk").only("pk", "task_id", "task_name")
        rows = list(rest[: transitions.CHUNK])
        if not rows:
            return
        yield rows
        last = rows[-1].pk


def _question(verb: Verb, count: int) -> str:
    if verb is REQUEUE:
        text = ngettext("Requeue %(count)d dead letter?", "Requeue %(count)d dead letters?", count)
    else:
        text = ngettext("Discard %(count)d dead letter?", "Discard %(count)d dead letters?", count)
    return text % {"count": count}


def _done(verb: Verb, count: int) -> str:
    if verb is REQUEUE:
        text = ngettext("%(count)d dead letter was requeued.", "%(count)d dead letters were requeued.", count)
    else:
        text = ngettext("%(count)d dead letter was discarded.", "%(count)d dead letters were discarded.", count)
    return text % {"count": count}
