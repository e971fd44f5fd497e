"""What a load balancer asks a web process: is it alive, and can it work?"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from django_taskkit.observability.health.readiness import OK, PARTS, look


@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Say that the process answers; asks nobody."""
    return HttpResponse("ok\n", content_type="text/plain")


@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Say whether database, migrations and broker are there: 200, or 503 and which is not.

    ``?without=broker`` leaves a part out, and may be given twice: with the outbox a web process does its work without
    the broker. A name that is no part is answered with 400.
    """
    without = frozenset(request.GET.getlist("without"))
    if unknown := without - set(PARTS):
        return JsonResponse({"error": f"{len(unknown)} of the names is no part", "parts": sorted(PARTS)}, status=400)
    parts = look(without)
    ready = all(answer == OK for answer in parts.values())
    return JsonResponse({"ready": ready, "parts": parts}, status=200 if ready else 503)
