"""What the list of dead letters shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from django_taskkit.dlq.models import DeadLetter, Reason


class RevokedFilter(admin.SimpleListFilter):
    """Leaves out what somebody revoked on purpose, unless it is asked for."""

    title = _("revoked tasks")
    parameter_name = "revoked"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("shown", _("Shown"))]

    def choices(self, changelist: Any) -> Iterator[Any]:
        hidden, shown = super().choices(changelist)
        yield {**hidden, "display": _("Hidden")}
        yield shown

    def queryset(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
        asked_for = any(name == SEARCH_VAR or name.startswith("reason") for name, value in request.GET.items() if value)
        if self.value() == "shown" or asked_for:
            return queryset
        return queryset.exclude(reason=Reason.REVOKED)
