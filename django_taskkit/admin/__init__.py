"""The admin pages; Django finds this package by itself."""

from __future__ import annotations

from django.contrib import admin

from django_taskkit.admin.dead_letters import DeadLetterAdmin
from django_taskkit.admin.redrives import RedriveAdmin
from django_taskkit.models import DeadLetter, Redrive

__all__ = ["DeadLetterAdmin", "RedriveAdmin"]

admin.site.register(DeadLetter, DeadLetterAdmin)
admin.site.register(Redrive, RedriveAdmin)
