"""``path("", include("django_taskkit.observability.health.urls"))``"""

from __future__ import annotations

from django.urls import path

from django_taskkit.observability.health import views

urlpatterns = [
    path("healthz", views.healthz, name="taskkit-healthz"),
    path("readyz", views.readyz, name="taskkit-readyz"),
]
