from django.conf import settings
from django.contrib import admin
from django.urls import include, path
{%- if cookiecutter.observability == "prometheus" %}
from django_taskkit.observability.metrics.views import metrics_view
{%- endif %}

admin.site.site_header = admin.site.site_title = settings.PROJECT_NAME
admin.site.index_title = "Administration"

urlpatterns = [
    path("", include("orders.urls")),
    path("admin/", admin.site.urls),
    # /healthz: the process answers. /readyz: so do database and broker, and all migrations are applied.
    path("", include("django_taskkit.observability.health.urls")),
    # Where progress bars ask how their tasks stand. Without: an error where a bar should be.
    path("tasks/", include("django_taskkit.results.urls")),
{%- if cookiecutter.observability == "prometheus" %}
    # For staff, and for who has TASKKIT_METRICS_TOKEN.
    path("metrics", metrics_view),
{%- endif %}
]
