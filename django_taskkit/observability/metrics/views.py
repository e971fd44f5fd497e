"""Where Prometheus finds the numbers of the web processes.

    from django_taskkit.observability.metrics.views import metrics_view

    urlpatterns = [..., path("metrics", metrics_view)]

Closed by default. It opens to who sends the token of ``TASKKIT_METRICS_TOKEN`` (an environment variable, at least 16
characters) as a bearer token, and to signed-in staff. The address that a request comes from opens nothing: behind a
proxy on the same machine everybody comes from loopback.
"""

from __future__ import annotations

import os
import secrets

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from django_taskkit import conf
from django_taskkit.exceptions import ConfigurationError

TOKEN_VARIABLE = "TASKKIT_METRICS_TOKEN"  # noqa: S105 (its name)
SHORTEST_TOKEN = 16
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@never_cache
@require_safe
def metrics_view(request: HttpRequest) -> HttpResponse:
    """Show what this process has counted, or all that share its ``PROMETHEUS_MULTIPROC_DIR``; 503 if that isn't there.

    Raises:
        PermissionDenied: the request has neither the token nor a session of staff.
        Http404: ``TASKKIT["METRICS"]`` doesn't name Prometheus.
    """
    if not (_has_token(request) or _is_staff(request)):
        raise PermissionDenied
    if "prometheus" not in conf.current().metrics:
        raise Http404
    from django_taskkit.observability.metrics import prometheus

    try:
        registry = prometheus.shown()
    except ConfigurationError as exc:
        return HttpResponse(f"{exc}\n", status=503, content_type="text/plain; charset=utf-8")
    return HttpResponse(prometheus.exposition(registry), content_type=CONTENT_TYPE)


def _has_token(request: HttpRequest) -> bool:
    token = os.environ.get(TOKEN_VARIABLE, "")
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    same = secrets.compare_digest(given.strip().encode(), token.encode())
    return same and kind.lower() == "bearer" and len(token) >= SHORTEST_TOKEN


def _is_staff(request: HttpRequest) -> bool:
    user = getattr(request, "user", None)
    return bool(user is not None and user.is_active and user.is_staff)
