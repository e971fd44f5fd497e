"""Where a page asks how its task stands: ``path("tasks/", include("django_taskkit.results.urls"))``."""

from __future__ import annotations

from django.urls import path

from django_taskkit.results.events import TaskEventsView
from django_taskkit.results.views import TaskStatusView

app_name = "taskkit"

urlpatterns = [
    path("<str:token>/", TaskStatusView.as_view(), name="status"),
    path("<str:token>/events/", TaskEventsView.as_view(), name="events"),
]
