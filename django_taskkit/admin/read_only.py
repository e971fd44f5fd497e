"""What the admin pages of dead letters and of redrives have in common: only their actions change anything."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest


class ReadOnly:
    """Comes before ``ModelAdmin``: rows are not added, edited or deleted by hand."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_requeue_permission(self, request: HttpRequest) -> bool:
        """Say whether messages may be sent again; named by actions as ``"requeue"``."""
        return bool(request.user.has_perm("django_taskkit.requeue_deadletter"))
