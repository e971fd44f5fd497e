"""What is for machines inside only. An Ingress has no word for it that all controllers understand."""

from django.http import HttpResponseNotFound

PATHS = {"/readyz", "/metrics"}


def inside_only(get_response):
    """Answer 404 at these paths to whoever comes by the Ingress. Probes and Prometheus ask the pods themselves."""

    def answer(request):
        # The Ingress says it of every request, over HTTP and HTTPS; without it the site would not work at all.
        if request.path_info in PATHS and "X-Forwarded-Proto" in request.headers:
            return HttpResponseNotFound()
        return get_response(request)

    return answer
