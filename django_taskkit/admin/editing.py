"""The page on which the arguments of a dead letter are edited."""

from __future__ import annotations

from typing import Any, NamedTuple

import django
from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.contrib.admin.models import CHANGE, LogEntry
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.crypto import constant_time_compare
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_taskkit.admin.argument_form import ArgumentsForm
from django_taskkit.admin.transitions import REQUEUE, run
from django_taskkit.dlq import editing
from django_taskkit.dlq.text import storable
from django_taskkit.exceptions import TaskkitError
from django_taskkit.models import DeadLetter


class Link(NamedTuple):
    """A button on the page of a dead letter."""

    name: str
    title: Any
    button: Any


EDIT = Link("edit", gettext_lazy("Edit the arguments of a dead letter"), gettext_lazy("Edit"))


def edit_or_ask(
    model_admin: ModelAdmin[DeadLetter], request: HttpRequest, row: DeadLetter, *, back: str, may_requeue: bool
) -> TemplateResponse | None:
    """Show the form, or do what it says; None when it was done.

    ``back`` is where Cancel leads. With ``may_requeue`` the letter can be requeued in one go.
    """
    posted = request.method == "POST"
    try:
        call = editing.call_of(row)
    except TaskkitError as exc:
        return _page(model_admin, request, row, back, {"why_not": storable(str(exc))})
    sees_secrets = request.user.has_perm("django_taskkit.view_sensitive_deadletter")
    if posted and not constant_time_compare(request.POST.get("digest", ""), editing.digest(row)):
        model_admin.message_user(request, _("It was changed meanwhile: this is what it is now."), messages.ERROR)
        posted = False
    form = ArgumentsForm(request.POST if posted else None, call, sees_secrets=sees_secrets)
    if posted and form.is_valid():
        try:
            done = _save(model_admin, request, row, form)
        except TaskkitError as exc:
            form.add_error(None, storable(str(exc)))
        else:
            if may_requeue and "requeue" in request.POST:
                run(model_admin, request, model_admin.get_queryset(request).filter(pk=row.pk), REQUEUE, {})
            elif not done:
                model_admin.message_user(request, _("Nothing was changed."), messages.WARNING)
            return None
    return _page(model_admin, request, row, back, {"form": form, "may_requeue": may_requeue})


def _save(model_admin: ModelAdmin[DeadLetter], request: HttpRequest, row: DeadLetter, form: ArgumentsForm) -> bool:
    data = form.cleaned_data
    done = editing.edit(row, data["args"], data["kwargs"], by=request.user, note=data["note"])
    if not done.changes:
        return False
    LogEntry.objects.log_actions(request.user.pk, [row], CHANGE, f"{EDIT.name.title()}: {done}")  # type: ignore[arg-type]
    model_admin.message_user(request, _("The arguments were changed."), messages.SUCCESS)
    return True


def _page(
    model_admin: ModelAdmin[DeadLetter], request: HttpRequest, row: DeadLetter, back: str, more: dict[str, object]
) -> TemplateResponse:
    context = {
        **model_admin.admin_site.each_context(request),
        "title": EDIT.title,
        "opts": model_admin.model._meta,
        "media": model_admin.media,
        "row": row,
        "digest": editing.digest(row),
        "back": back,
        "breadcrumbs_are_a_list": django.VERSION >= (6, 1),
        **more,
    }
    return TemplateResponse(request, "admin/django_taskkit/deadletter/edit.html", context)
