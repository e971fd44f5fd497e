from django.conf import settings
from django.contrib import admin
from django.urls import include, path

from config.health import healthz

admin.site.site_header = admin.site.site_title = settings.PROJECT_NAME
admin.site.index_title = "Administration"

urlpatterns = [
    path("", include("orders.urls")),
    path("admin/", admin.site.urls),
    path("healthz", healthz, name="healthz"),
    # Where progress bars ask how their tasks stand. Without: an error where a bar should be.
    path("tasks/", include("django_taskkit.results.urls")),
]
