"""A small site with progress bars, under a strict policy: no inline script, no inline style, nothing from elsewhere."""

import importlib.resources
import os
import time
from pathlib import Path

from django.http import FileResponse, HttpResponse, HttpResponseRedirect
from django.template import RequestContext, Template
from django.urls import include, path
from django.utils import translation

from django_taskkit.progress import Progress
from django_taskkit.results import Status, TaskState, TaskStatusView

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

PAGE = Template("""{% load taskkit %}<!doctype html>
<html lang="en"{% if rtl %} dir="rtl"{% endif %}>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="htmx-config" content='{"includeIndicatorStyles": false, "includeIndicatorCSS": false, "allowEval": false}'>
<title>Reports</title>
<link rel="stylesheet" href="/site.css">
{% if htmx %}<script src="/htmx-{{ htmx }}.js" defer></script>{% endif %}
{% task_progress_media %}
</head>
<body{% if inherits %} hx-boost="true" hx-target="#later" hx-select="#later" hx-swap="innerHTML" hx-push-url="true"
  hx-boost:inherited="true" hx-target:inherited="#later" hx-select:inherited="#later" hx-swap:inherited="innerHTML"
  hx-push-url:inherited="true"{% endif %}>
<main>
<h1>Reports</h1>
{% for bar in bars %}
{% task_progress bar.state then=bar.then label=bar.label poll_every=bar.every stale=bar.stale %}
{% if bar.state.has_value %}<p class="value">{{ bar.state.value }}</p>{% endif %}
{% endfor %}
<div id="later"></div>
</main>
</body>
</html>
""")
PART = Template("{% load taskkit %}{% task_progress state label='Later' poll_every=0.2 %}")

STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; line-height: 1.4; }
body { margin: 0; } main { padding: 1rem; display: grid; gap: 1.5rem; max-width: 60rem; margin: auto; }
h1 { margin: 0; }
"""


class Site:
    """What the test has said, and what the site has seen."""

    def __init__(self):
        self.caches = {}
        """ResultCaches by name."""
        self.down = None
        """Makes the answer to a poll, while the server is out of order."""
        self.slow = 0
        """Seconds that a page takes."""
        self.polls = []
        """When each poll came."""
        self.loads = []
        """Addresses of the pages that were loaded."""


site = Site()


def protected(view):
    """Return `view` under the policy. A middleware would do; the live server was started before a test can say so."""

    def answer(request, **kwargs):
        response = view(request, **kwargs)
        response["Content-Security-Policy"] = POLICY
        return response

    return answer


def status(request, token):
    site.polls.append(time.monotonic())
    return site.down() if site.down else TaskStatusView.as_view()(request, token=token)


def show(request, *bars):
    site.loads.append(request.get_full_path())
    time.sleep(site.slow)
    defaults = {
        "then": request.GET.get("then", ""),
        "every": float(request.GET.get("every", 0.2)),
        "stale": "stale" in request.GET,
    }
    context = {
        "bars": [{**defaults, **bar} for bar in bars],
        "htmx": request.GET.get("htmx"),
        "rtl": "rtl" in request.GET,
        "inherits": "inherits" in request.GET,
    }
    with translation.override(request.GET.get("language", "en")):
        return HttpResponse(PAGE.render(RequestContext(request, context)))


def report(request):
    return show(request, {"state": site.caches["sales"].get_or_dispatch(), "label": "Sales"})


def two(request):
    names = ("sales", "stock")
    return show(request, *({"state": site.caches[name].get_or_dispatch(), "label": name.title()} for name in names))


def stubborn(request):
    """Say that one has to wait, whatever has become of the task."""
    state = site.caches["sales"].get_or_dispatch()
    return show(
        request, {"state": TaskState(status=Status.RUNNING, task_id=state.task_id, cache=state.cache), "label": "Sales"}
    )


def part(request):
    return HttpResponse(PART.render(RequestContext(request, {"state": site.caches["sales"].get_or_dispatch()})))


def gallery(request):
    long = "An export of everything that has ever been sold, with a name that is longer than a telephone is wide"
    states = [
        (Status.PENDING, "Waiting", {}),
        (Status.RUNNING, "Nobody knows how far", {"progress": Progress(message="reading orders.csv")}),
        (Status.RUNNING, "Sales", {"progress": Progress(done=37, total=100, message="row 3 700 of 10 000")}),
        (Status.RUNNING, long, {"progress": Progress(done=99, total=100, message="x" * 120)}),
        (Status.RETRYING, "Again", {"retry_after": 240, "progress": Progress(done=1, total=4)}),
        (Status.FAILED, "Failed", {"dead_letter": "dead"}),
        (Status.LOST, "Lost", {}),
        (Status.REFUSED, "Refused", {}),
        (Status.HIT, "Done", {"value": "", "then": "/elsewhere/"}),
        (Status.STALE, "Renewed", {"value": "", "run": Status.RUNNING, "stale": True}),
    ]
    bars = [
        {"label": label, "every": 3600, "then": facts.pop("then", ""), "stale": facts.pop("stale", False)}
        | {"state": TaskState(status=status, task_id=f"task-{number}", **facts)}
        for number, (status, label, facts) in enumerate(states)
    ]
    return show(request, *bars)


def elsewhere(request):
    site.loads.append(request.get_full_path())
    return HttpResponse("<!doctype html><title>Elsewhere</title><p id='elsewhere'>Here you are.</p>")


def log_in(request):
    return HttpResponse("<!doctype html><title>Log in</title><form><input></form>")


def style(request):
    return HttpResponse(STYLE, content_type="text/css")


def htmx_file(version):
    """Where htmx is; django-htmx brings 2 and 4, the variable ``TASKKIT_TEST_HTMX_1`` names the file of another."""
    if other := os.environ.get(f"TASKKIT_TEST_HTMX_{version}"):
        return Path(other)
    return Path(str(importlib.resources.files("django_htmx"))) / f"static/django_htmx/htmx-{version}.min.js"


def htmx(request, version):
    return FileResponse(htmx_file(version).open("rb"), content_type="text/javascript")


def redirect_to_log_in():
    return HttpResponseRedirect("/log-in/")


pages = {
    "report/": report,
    "two/": two,
    "stubborn/": stubborn,
    "part/": part,
    "gallery/": gallery,
    "elsewhere/": elsewhere,
    "log-in/": log_in,
    "site.css": style,
    "htmx-<int:version>.js": htmx,
}
tasks = [path("<str:token>/", protected(status), name="status")]
urlpatterns = [
    *(path(route, protected(view)) for route, view in pages.items()),
    path("tasks/", include((tasks, "taskkit"))),
]
