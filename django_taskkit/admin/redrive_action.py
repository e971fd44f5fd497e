"""The action that makes a redrive from the list of dead letters."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import ModelAdmin
from django.contrib.admin.models import ADDITION, LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext_lazy, ngettext

from django_taskkit.admin.forms import RequeueForm
from django_taskkit.admin.transitions import Verb, as_confirmed, ask
from django_taskkit.dlq.models import DeadLetter
from django_taskkit.dlq.redrive.creation import REQUEUABLE, create_redrive
from django_taskkit.dlq.redrive.model import Redrive


class RedriveForm(RequeueForm):
    """How to put many messages back, and how fast."""

    countdown = None  # type: ignore[assignment]  # a redrive takes its time; a moment is what it may wait for

    rate = forms.FloatField(
        label=gettext_lazy("Messages per second"),
        min_value=0.01,
        max_value=1_000_000,
        required=False,
        help_text=gettext_lazy("Empty: as fast as it goes."),
    )
    canary = forms.BooleanField(
        label=gettext_lazy("Canary"),
        required=False,
        initial=True,
        help_text=gettext_lazy(
            "Sends 1, then 5, 25, and so on, waits for each to succeed, and stops if the same failure comes back."
        ),
    )
    field_order = ("rate", "canary")


REDRIVE = Verb(
    name="redrive",
    form=RedriveForm,
    allowed=REQUEUABLE,
    run=create_redrive,
    title=gettext_lazy("Redrive dead letters"),
    explanation=gettext_lazy(
        "The relay sends the same messages again under the same task ids. "
        "It can be paused, resumed and cancelled, and goes on after a restart."
    ),
    button=gettext_lazy("Redrive"),
    question=lambda count: (
        ngettext("Redrive %(count)d dead letter?", "Redrive %(count)d dead letters?", count) % {"count": count}
    ),
)


@admin.action(description=gettext_lazy("Redrive selected dead letters"), permissions=["requeue"])
def redrive_selected(
    model_admin: ModelAdmin[DeadLetter], request: HttpRequest, queryset: QuerySet[DeadLetter]
) -> HttpResponse | None:
    """Ask how, or make the redrive when that was said."""
    confirmed = "confirmed" in request.POST
    form = RedriveForm(request.POST if confirmed else None)
    if confirmed and form.is_valid():
        redrive = _make(request, as_confirmed(request, queryset), form.cleaned_data)
        return _show(model_admin, request, redrive)
    return ask(model_admin, request, queryset, REDRIVE, form, back=request.get_full_path())


def _make(request: HttpRequest, queryset: QuerySet[DeadLetter], said: dict[str, Any]) -> Redrive:
    return create_redrive(
        queryset,
        selection=_selection(request),
        by=request.user,
        rate=said["rate"],
        canary=said["canary"],
        queue=said["queue"],
        not_before=said["not_before"],
        despite_preflight=said["despite_preflight"],
        even_if_ran=said["even_if_ran"],
        reset_results=said["reset_results"],
    )


def _selection(request: HttpRequest) -> str:
    """Return in words what was chosen: the query of the list, or how many rows were ticked."""
    query = request.GET.urlencode()
    if request.POST.get("select_across") == "1":
        return f"admin: all with {query}" if query else "admin: all"
    count = len(request.POST.getlist("_selected_action"))
    return ngettext("admin: %(count)d selected", "admin: %(count)d selected", count) % {"count": count}


def _show(model_admin: ModelAdmin[DeadLetter], request: HttpRequest, redrive: Redrive) -> HttpResponse:
    LogEntry.objects.log_actions(request.user.pk, [redrive], ADDITION, "Redrive")  # type: ignore[arg-type]
    text = ngettext(
        "The redrive has %(count)d dead letter.", "The redrive has %(count)d dead letters.", redrive.total
    ) % {"count": redrive.total}
    if redrive.left_out:
        left_out = ngettext(
            "%(count)d more is in another redrive and was left out.",
            "%(count)d more are in another redrive and were left out.",
            redrive.left_out,
        )
        text = f"{text} {left_out % {'count': redrive.left_out}}"
    model_admin.message_user(request, text, messages.SUCCESS if redrive.total else messages.WARNING)
    site = model_admin.admin_site.name
    return HttpResponseRedirect(reverse("admin:django_taskkit_redrive_change", args=[redrive.pk], current_app=site))
