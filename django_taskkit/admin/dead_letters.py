"""Dead letters in the admin: find one, see what happened, put it back."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db import connections, transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_taskkit.admin import display
from django_taskkit.admin.editing import EDIT, edit_or_ask
from django_taskkit.admin.filters import RevokedFilter
from django_taskkit.admin.read_only import ReadOnly
from django_taskkit.admin.redrive_action import redrive_selected
from django_taskkit.admin.transitions import DISCARD, REQUEUE, Verb, confirm_or_run
from django_taskkit.dlq.editing import STATUSES
from django_taskkit.dlq.project import has_app
from django_taskkit.models import DeadLetter, DeadLetterEvent

if TYPE_CHECKING:
    TabularInline = admin.TabularInline[DeadLetterEvent, DeadLetter]
    ModelAdmin = admin.ModelAdmin[DeadLetter]
else:
    TabularInline, ModelAdmin = admin.TabularInline, admin.ModelAdmin


def outside_transactions(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Exempt ``view`` from ATOMIC_REQUESTS on every database: a router may keep dead letters in any of them."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


class DeadLetterList(ChangeList):
    """The list, without drill-down by date where the database knows no time zones."""

    def __init__(self, request: HttpRequest, model: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, model, *args, **kwargs)
        # MariaDB and MySQL answer NULL until their time zone tables are loaded, and Django raises.
        if not connections[self.queryset.db].features.has_zoneinfo_database:
            self.date_hierarchy = None


class HistoryInline(TabularInline):
    """What happened to the dead letter, oldest first."""

    model = DeadLetterEvent
    fields = readonly_fields = ("at", "kind", "by", "generation", "note")
    can_delete = False
    extra = 0

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("django_taskkit.view_deadletter")


class DeadLetterAdmin(ReadOnly, ModelAdmin):
    """Read-only, except for what its actions do."""

    list_display = ("task", "status", "reason", "exception", "age", "attempts")
    list_display_links = ("task",)
    list_filter = (
        "status",
        "task_name",
        "exception_class",
        "queue",
        "release",
        "reason",
        RevokedFilter,
    )
    search_fields = ("task_id", "task_name", "exception_class", "exception_message")
    date_hierarchy = "died_at"
    show_full_result_count = False
    actions = ("requeue_selected", redrive_selected, "discard_selected")
    change_form_template = "admin/django_taskkit/deadletter/change_form.html"
    inlines = (HistoryInline,)
    fieldsets = (
        (
            None,
            {"fields": ("task_name", "task_id", "status", "reason", "exception_class", "exception_message")},
        ),
        (_("Preflight"), {"fields": ("shown_verdict",)}),
        (_("Traceback"), {"fields": ("shown_traceback",)}),
        (_("Arguments"), {"fields": ("shown_arguments",)}),
        (
            _("Circumstances"),
            {
                "fields": (
                    "died_at",
                    "attempts",
                    "body_ran",
                    "requeue_count",
                    "queue",
                    "worker",
                    "release",
                    "fingerprint",
                )
            },
        ),
        (_("Workflow"), {"classes": ("collapse",), "fields": ("root_id", "parent_id", "group_id")}),
        (_("Message"), {"classes": ("collapse",), "fields": ("shown_message",)}),
    )
    readonly_fields = ("shown_verdict", "shown_traceback", "shown_arguments", "shown_message")

    class Media:
        css: ClassVar[dict[str, tuple[str, ...]]] = {"all": ("django_taskkit/admin.css",)}

    def has_discard_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_taskkit.discard_deadletter")

    def has_edit_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_taskkit.edit_deadletter")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        left_out = set()
        if obj is not None and not obj.body_ran:
            left_out.add("body_ran")  # its help text says what is so where it is true
        if obj is not None and (obj.status not in REQUEUE.allowed or not has_app()):
            left_out.add("shown_verdict")
        kept = [
            (name, {**options, "fields": tuple(field for field in options["fields"] if field not in left_out)})
            for name, options in fieldsets
        ]
        return [(name, options) for name, options in kept if options["fields"]]

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeadLetter]:
        rows = super().get_queryset(request)
        # A list needs neither bodies of megabytes nor tracebacks; the detail page loads them when it gets there.
        return rows.defer("body", "traceback", "headers", "properties")

    @admin.display(description=_("task"), ordering="task_name")
    def task(self, row: DeadLetter) -> str:
        # A long name breaks after its dots, not in the middle of a word.
        parts = ((part,) for part in re.split(r"(?<=\.)", row.task_name))
        name = format_html_join(SafeString("<wbr>"), "{}", parts)
        return format_html("{}<br><small>{}</small>", name, row.task_id)

    @admin.display(description=_("exception"), ordering="exception_class")
    def exception(self, row: DeadLetter) -> str:
        return display.exception(row)

    @admin.display(description=_("age"), ordering="-died_at")
    def age(self, row: DeadLetter) -> str:
        return display.age(row.died_at)

    @admin.display(description=_("preflight"))
    def shown_verdict(self, row: DeadLetter) -> str:
        return display.verdict(row)

    @admin.display(description=_("traceback"))
    def shown_traceback(self, row: DeadLetter) -> str:
        return display.traceback(row)

    @admin.display(description=_("arguments"))
    def shown_arguments(self, row: DeadLetter) -> str:
        return display.arguments(row)

    @admin.display(description=_("message"))
    def shown_message(self, row: DeadLetter) -> str:
        return display.message(row)

    @admin.action(description=_("Requeue selected dead letters"), permissions=["requeue"])
    def requeue_selected(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse | None:
        return confirm_or_run(self, request, queryset, REQUEUE, back=request.get_full_path())

    @admin.action(description=_("Discard selected dead letters"), permissions=["discard"])
    def discard_selected(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse | None:
        return confirm_or_run(self, request, queryset, DISCARD, back=request.get_full_path())

    @outside_transactions
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        # With ATOMIC_REQUESTS a bulk action would hold the rows of tasks that run already, until the last one is sent.
        return super().changelist_view(request, extra_context)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return DeadLetterList

    def get_urls(self) -> list[URLPattern]:
        def page(verb: Verb) -> Callable[..., HttpResponse]:
            # As with the list: no row may stay as it was in the eyes of others while its task runs already.
            return outside_transactions(self.admin_site.admin_view(partial(self._one, verb=verb)))

        own = [
            path(f"<int:pk>/{verb.name}/", page(verb), name=f"django_taskkit_deadletter_{verb.name}")
            for verb in (REQUEUE, DISCARD)
        ]
        edit = outside_transactions(self.admin_site.admin_view(self._edit))
        own.append(path(f"<int:pk>/{EDIT.name}/", edit, name=f"django_taskkit_deadletter_{EDIT.name}"))
        return [*own, *super().get_urls()]

    def _one(self, request: HttpRequest, pk: int, verb: Verb) -> HttpResponse:
        """The same confirmation for one dead letter, from its own page."""
        may = {REQUEUE.name: self.has_requeue_permission, DISCARD.name: self.has_discard_permission}[verb.name]
        if not (may(request) and self.has_view_permission(request)):
            raise PermissionDenied
        rows = self.get_queryset(request).filter(pk=pk)
        if not rows.exists():
            raise Http404
        own = self._page_of(pk)
        # One by one, and with a word of warning, a letter that waits for a message that is lost can be helped.
        page = confirm_or_run(self, request, rows, verb, back=own, force=True)
        return page or HttpResponseRedirect(own)

    def _edit(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The form with the arguments of one dead letter."""
        if not (self.has_edit_permission(request) and self.has_view_permission(request)):
            raise PermissionDenied
        row = self.get_queryset(request).defer(None).filter(pk=pk).first()
        if row is None:
            raise Http404
        own = self._page_of(pk)
        page = edit_or_ask(self, request, row, back=own, may_requeue=self.has_requeue_permission(request))
        return page or HttpResponseRedirect(own)

    def _page_of(self, pk: int) -> str:
        return reverse("admin:django_taskkit_deadletter_change", args=[pk], current_app=self.admin_site.name)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        row = kwargs.get("obj")
        context["verbs"] = [
            verb
            for verb, may in ((REQUEUE, self.has_requeue_permission), (DISCARD, self.has_discard_permission))
            if row is not None and row.status in verb.statuses(force=True) and may(request)
        ]
        if row is not None and row.status in STATUSES and self.has_edit_permission(request):
            context["verbs"].append(EDIT)
        return super().render_change_form(request, context, *args, **kwargs)
