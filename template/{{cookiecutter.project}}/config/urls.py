from django.conf import settings
from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

from config.health import healthz

admin.site.site_header = admin.site.site_title = settings.PROJECT_NAME
admin.site.index_title = "Administration"

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("healthz", healthz, name="healthz"),
]
