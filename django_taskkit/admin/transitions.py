"""Requeue and discard from the admin: confirm with the count, do it, say what was done, log who did it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import django
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

from django_taskkit.admin.forms import DiscardForm, RequeueForm
from django_taskkit.dlq import transitions
from django_taskkit.dlq.models import DeadLetter, Status
from django_taskkit.dlq.preflight import Color, Preflight, Summary, passing
from django_taskkit.dlq.project import has_app
from django_taskkit.exceptions import NoAppError

SHOWN_REFUSALS = 5
"""Reasons that are shown one by one; a bulk action may have thousands."""

LOOKED_AT = 2_000
"""Dead letters that are looked at before the question is asked, in at most :data:`LOOKING_TIME` seconds."""

LOOKING_TIME = 5.0


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
    question: Callable[[int], str]
    """Asks whether to do it with so many."""

    def statuses(self, force: bool) -> tuple[Status, ...]:
        """Return the statuses of letters that it applies to."""
        return (*self.allowed, Status.REQUEUED) if force else self.allowed


REQUEUE = Verb(
    name="requeue",
    form=RequeueForm,
    allowed=(Status.DEAD, Status.HELD),
    run=transitions.requeue,
    title=gettext_lazy("Requeue dead letters"),
    explanation=gettext_lazy(
        "The same message is sent again under the same task id, and all its retries are available again."
    ),
    button=gettext_lazy("Requeue"),
    question=lambda count: (
        ngettext("Requeue %(count)d dead letter?", "Requeue %(count)d dead letters?", count) % {"count": count}
    ),
)
DISCARD = Verb(
    name="discard",
    form=DiscardForm,
    allowed=(Status.DEAD, Status.HELD),
    run=transitions.discard,
    title=gettext_lazy("Discard dead letters"),
    explanation=gettext_lazy("The tasks will not run. The dead letters stay in the list as discarded."),
    button=gettext_lazy("Discard"),
    question=lambda count: (
        ngettext("Discard %(count)d dead letter?", "Discard %(count)d dead letters?", count) % {"count": count}
    ),
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
        run(model_admin, request, as_confirmed(request, queryset), verb, form.cleaned_data, force)
        return None
    return ask(model_admin, request, queryset, verb, form, back=back, force=force)


def ask(
    model_admin: ModelAdmin[DeadLetter],
    request: HttpRequest,
    queryset: QuerySet[DeadLetter],
    verb: Verb,
    form: forms.Form,
    *,
    back: str,
    force: bool = False,
) -> TemplateResponse:
    """Return the page with the count, what the preflight finds, and ``form``; see :func:`confirm_or_run`."""
    able = queryset.filter(status__in=verb.statuses(force))
    count = able.count()
    ran = able.filter(body_ran=True).count() if "even_if_ran" in form.fields else 0
    if not ran:
        form.fields.pop("even_if_ran", None)
    preflight = looked_at(able, force) if "despite_preflight" in form.fields and count else None
    if preflight is None or not needs_a_tick(preflight):
        form.fields.pop("despite_preflight", None)
    context = {
        **model_admin.admin_site.each_context(request),
        "title": verb.title,
        "opts": model_admin.model._meta,
        "media": model_admin.media,
        "verb": verb,
        "form": form,
        "count": count,
        "question": verb.question(count),
        "ran": ran,
        "held": able.filter(status=Status.HELD).count() if verb is DISCARD else 0,
        "preflight": preflight,
        "skipped": queryset.count() - count,
        "until": last_death(queryset),
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
    preflight = None
    if verb is REQUEUE and not given.pop("despite_preflight", False) and has_app():
        preflight = Preflight(app_or_default(), even_if_ran=True)
    done, not_tried, left_out = 0, 0, 0
    refused: list[transitions.Refusal] = []
    chunks = _chunks(queryset.filter(status__in=verb.statuses(force)))
    for chunk in chunks:
        rows = chunk if preflight is None else _without_red(preflight, chunk)
        left_out += len(chunk) - len(rows)
        if not rows:
            continue
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
    if done or not (refused or not_tried or left_out):
        model_admin.message_user(request, _done(verb, done), messages.SUCCESS if done else messages.WARNING)
    if left_out:
        text = ngettext(
            "%(count)d dead letter was left out, since it would fail again.",
            "%(count)d dead letters were left out, since they would fail again.",
            left_out,
        ) % {"count": left_out}
        model_admin.message_user(request, text, messages.WARNING)
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


def looked_at(rows: QuerySet[DeadLetter], force: bool) -> Summary | None:
    """Return what the preflight says of the first ``rows``; None where this process has no Celery app."""
    if not has_app():
        return None  # requeueing says what is missing
    return Preflight(app_or_default(), force=force).summary(rows, limit=LOOKED_AT, seconds=LOOKING_TIME)


def needs_a_tick(preflight: Summary) -> bool:
    """Say whether some may be red, but for those that have a tick of their own."""
    red = (finding for finding in preflight.findings if finding.color is Color.RED and finding.code != "body_ran")
    return not preflight.complete or preflight.others > 0 or any(red)


def _without_red(preflight: Preflight, rows: list[DeadLetter]) -> list[DeadLetter]:
    kept = {pk for keys, _left_out in passing(preflight, [row.pk for row in rows]) for pk in keys}
    return [row for row in rows if row.pk in kept]


def last_death(queryset: QuerySet[DeadLetter]) -> str:
    """Return when the last of them died, for the form to bring back; see :func:`as_confirmed`."""
    last = queryset.aggregate(last=Max("died_at"))["last"]
    return last.isoformat() if last else ""


def as_confirmed(request: HttpRequest, queryset: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
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


def _done(verb: Verb, count: int) -> str:
    if verb is REQUEUE:
        text = ngettext("%(count)d dead letter was requeued.", "%(count)d dead letters were requeued.", count)
    else:
        text = ngettext("%(count)d dead letter was discarded.", "%(count)d dead letters were discarded.", count)
    return text % {"count": count}
