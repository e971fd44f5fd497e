"""Redrives in the admin: see how far they are, pause, resume and cancel them; and make one from the dead letters."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import django
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from django_taskkit.admin import redrive_display as display
from django_taskkit.admin.dead_letters import outside_transactions
from django_taskkit.admin.display import age
from django_taskkit.admin.read_only import ReadOnly
from django_taskkit.admin.redrive_action import redrive_selected
from django_taskkit.dlq.redrive import control
from django_taskkit.dlq.redrive.model import Redrive
from django_taskkit.dlq.redrive.outcomes import Outcomes
from django_taskkit.dlq.redrive.progress import is_abandoned, progress_of

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Redrive]
else:
    ModelAdmin = admin.ModelAdmin

__all__ = ["RedriveAdmin", "redrive_selected"]

RELOADED = 5
"""Seconds after which the page of a running redrive is loaded again."""

LOOKED_AT = 2_000
"""Sent messages that the page looks up, in case no relay does."""


@dataclass(frozen=True)
class Change:
    """Something an operator does with a redrive."""

    name: str
    run: Callable[..., bool]
    states: tuple[Redrive.State, ...]
    title: Any
    button: Any
    explanation: Any


PAUSE = Change(
    "pause",
    control.pause,
    control.PAUSABLE,
    _("Pause redrives"),
    _("Pause"),
    _("Nothing more is sent until it is resumed. What was sent runs on."),
)
RESUME = Change(
    "resume",
    lambda redrive, by: control.resume(redrive),
    control.RESUMABLE,
    _("Resume redrives"),
    _("Resume"),
    _("The rest is sent. A canary that has stopped goes on with its next step."),
)
CANCEL = Change(
    "cancel",
    control.cancel,
    control.CANCELLABLE,
    _("Cancel redrives"),
    # Not "Cancel", which is what leads back from a question.
    _("Cancel the redrive"),
    _("Nothing more is sent, ever. What was sent runs on, and the rest stays as it is: another redrive may take it."),
)
CHANGES = (PAUSE, RESUME, CANCEL)


class RedriveAdmin(ReadOnly, ModelAdmin):
    """Read-only, except for what its actions do."""

    list_display = ("redrive", "shown_state", "shown_progress", "shown_rate", "created_by", "age")
    list_display_links = ("redrive",)
    list_filter = ("state",)
    search_fields = ("selection", "created_by")
    show_full_result_count = False
    actions = ("pause_selected", "resume_selected", "cancel_selected")
    change_form_template = "admin/django_taskkit/redrive/change_form.html"
    fieldsets = (
        (None, {"fields": ("shown_state", "why", "shown_progress", "shown_counts", "shown_runner")}),
        (_("Refused"), {"fields": ("shown_refusals",)}),
        (_("Failed again"), {"fields": ("shown_failures",)}),
        (
            _("What and how"),
            {
                "fields": (
                    *("selection", "created_by", "created_at", "started_at", "ended_at", "shown_rate", "canary"),
                    *("queue", "not_before", "despite_preflight", "even_if_ran", "reset_results"),
                )
            },
        ),
    )
    readonly_fields = (
        *("shown_state", "shown_progress", "shown_counts", "shown_runner", "shown_refusals", "shown_failures"),
        "shown_rate",
    )

    class Media:
        css: ClassVar[dict[str, tuple[str, ...]]] = {"all": ("django_taskkit/admin.css",)}

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Who makes redrives sees them.
        return super().has_view_permission(request, obj) or self.has_requeue_permission(request)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        left_out: set[Any] = set()
        if obj is not None and not obj.refused:
            left_out.add("shown_refusals")
        if obj is not None and not (obj.failed_again and request.user.has_perm("django_taskkit.view_deadletter")):
            left_out.add("shown_failures")  # names and messages of dead letters
        if obj is not None and not obj.why:
            left_out.add("why")
        kept = [
            (name, {**options, "fields": tuple(field for field in options["fields"] if field not in left_out)})
            for name, options in super().get_fieldsets(request, obj)
        ]
        return [(name, options) for name, options in kept if options["fields"]]

    @admin.display(description=_("redrive"), ordering="pk")
    def redrive(self, row: Redrive) -> str:
        return display.name(row)

    @admin.display(description=_("state"), ordering="state")
    def shown_state(self, row: Redrive) -> str:
        return display.state(row)

    @admin.display(description=_("progress"))
    def shown_progress(self, row: Redrive) -> str:
        return display.progress(row)

    @admin.display(description=_("rate"), ordering="rate")
    def shown_rate(self, row: Redrive) -> str:
        return display.rate(row)

    @admin.display(description=_("counts"))
    def shown_counts(self, row: Redrive) -> str:
        return display.counts(row)

    @admin.display(description=_("run by"))
    def shown_runner(self, row: Redrive) -> str:
        return display.runner(row)

    @admin.display(description=_("refused"))
    def shown_refusals(self, row: Redrive) -> str:
        return display.refusals(row)

    @admin.display(description=_("failed again"))
    def shown_failures(self, row: Redrive) -> str:
        return display.failures(row, self.admin_site.name)

    @admin.action(description=_("Pause selected redrives"), permissions=["requeue"])
    def pause_selected(self, request: HttpRequest, queryset: QuerySet[Redrive]) -> HttpResponse | None:
        return self._ask_or_do(request, queryset, PAUSE, request.get_full_path())

    @admin.action(description=_("Resume selected redrives"), permissions=["requeue"])
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[Redrive]) -> HttpResponse | None:
        return self._ask_or_do(request, queryset, RESUME, request.get_full_path())

    @admin.action(description=_("Cancel selected redrives"), permissions=["requeue"])
    def cancel_selected(self, request: HttpRequest, queryset: QuerySet[Redrive]) -> HttpResponse | None:
        return self._ask_or_do(request, queryset, CANCEL, request.get_full_path())

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(
                f"<int:pk>/{change.name}/",
                self.admin_site.admin_view(partial(self._one, change=change)),
                name=f"django_taskkit_redrive_{change.name}",
            )
            for change in CHANGES
        ]
        return [*own, *super().get_urls()]

    @admin.display(description=_("age"), ordering="-created_at")
    def age(self, row: Redrive) -> str:
        return age(row.created_at)

    @outside_transactions
    def change_view(self, *args: Any, **kwargs: Any) -> HttpResponse:
        # What the page looks up, it notes. With ATOMIC_REQUESTS a runner would wait for the page, and SQLite refuses to
        # write after others have written since the request's first query.
        return super().change_view(*args, **kwargs)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Redrive | None:
        row = super().get_object(request, object_id, from_field)
        if row is not None and progress_of(row).running:
            with suppress(DatabaseError):  # one that is busy: the page shows what is known, and the relay looks too
                Outcomes(row.pk).settle_first(LOOKED_AT)
            row.refresh_from_db()
        return row

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        row = kwargs.get("obj")
        if row is not None:
            may = self.has_requeue_permission(request)
            context["changes"] = [change for change in CHANGES if row.state in change.states and may]
            preparing = row.state == Redrive.State.PREPARING and not is_abandoned(row)
            is_moving = preparing or row.state == Redrive.State.RUNNING or bool(progress_of(row).running)
            context["is_moving"] = is_moving
            if is_moving and request.GET.get("reload") != "off":
                context["reloaded"] = RELOADED
        return super().render_change_form(request, context, *args, **kwargs)

    def _one(self, request: HttpRequest, pk: int, change: Change) -> HttpResponse:
        if not self.has_requeue_permission(request):
            raise PermissionDenied
        rows = self.get_queryset(request).filter(pk=pk)
        if not rows.exists():
            raise Http404
        own = reverse("admin:django_taskkit_redrive_change", args=[pk], current_app=self.admin_site.name)
        return self._ask_or_do(request, rows, change, own) or HttpResponseRedirect(own)

    def _ask_or_do(
        self, request: HttpRequest, queryset: QuerySet[Redrive], change: Change, back: str
    ) -> TemplateResponse | None:
        """Ask, or do it when the answer was given; None when it was done."""
        if "confirmed" in request.POST:
            self._do(request, queryset, change)
            return None
        able = list(queryset.filter(state__in=change.states))
        context = {
            **self.admin_site.each_context(request),
            "title": change.title,
            "opts": self.model._meta,
            "media": self.media,
            "change": change,
            "redrives": [(row, progress_of(row)) for row in able],
            "skipped": queryset.count() - len(able),
            "back": back,
            "breadcrumbs_are_a_list": django.VERSION >= (6, 1),
            "repeated": [
                (name, value)
                for name in ("action", "select_across", "index", "_selected_action")
                for value in request.POST.getlist(name)
            ],
        }
        return TemplateResponse(request, "admin/django_taskkit/redrive/confirm.html", context)

    def _do(self, request: HttpRequest, queryset: QuerySet[Redrive], change: Change) -> None:
        rows = list(queryset)
        done = [row for row in rows if change.run(row, by=request.user)]
        if done:
            LogEntry.objects.log_actions(request.user.pk, done, CHANGE, change.name.title())  # type: ignore[arg-type]
            text = ngettext("%(count)d redrive was changed.", "%(count)d redrives were changed.", len(done))
            self.message_user(request, text % {"count": len(done)}, messages.SUCCESS)
        if left := len(rows) - len(done):
            text = ngettext(
                "%(count)d redrive is in a state that does not allow this.",
                "%(count)d redrives are in a state that does not allow this.",
                left,
            )
            self.message_user(request, text % {"count": left}, messages.WARNING)
