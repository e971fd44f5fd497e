"""The progress bar as HTML: all of it for a page, and for its polls the part that changes.

The outer element stays where it is, with a live region for screen readers: one that came anew with each poll would be
read again and again, or never. The part inside asks for its successor, by htmx or by ``progress.js``, and the last one
has nothing to ask with.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.results import bars
from django_taskkit.results.outline import safe_target
from django_taskkit.results.sentences import UNKNOWN, name_of, sentence
from django_taskkit.results.state import Status, TaskState
from django_taskkit.results.tokens import make_token

WHOLE: Final = "django_taskkit/progress.html"
ANSWER: Final = "django_taskkit/progress/answer.html"

_AGAIN: Final = (Status.LOST, Status.REFUSED)
"""What may work if the page is loaded again."""


def render_progress(
    state: TaskState | None,
    *,
    request: HttpRequest,
    then: str = "",
    label: str = "",
    token: str = "",
    poll_every: float | None = None,
    path: str = "",
) -> SafeString:
    """Return how ``state`` stands as HTML: the answer to a poll if ``request`` is one, else a new progress bar.

    Args:
        state: None if nothing is known of the task any more, or it is not for whoever asks.
        request: of the page, or of the poll.
        then: where to go when the task is done; empty: nowhere.
        label: what the task is called on the page.
        token: with which the page asks how the task stands; empty: a new one is made.
        poll_every: seconds between two polls; None: as the state says.
        path: where the page asks; empty: ``taskkit:status``. A poll asks where it has asked before.

    Raises:
        ConfigurationError: the URLs of ``django_taskkit.results`` are not in the project's.
    """
    poll = bars.read_poll(request)
    if poll is None:
        poll = bars.new_poll(state, poll_every)
        context = _context(state, poll, request=request, then=then, label=label, token=token, path=path)
        return render_to_string(WHOLE, {**context, "reload_after": _reload_after(context, request)})
    context = _context(state, poll, request=request, then=then, label=label, token=token, path=request.path)
    if context["is_done"] and context["link"]:
        if not _is_of_htmx(request):
            context["go"] = context["link"]
        elif not poll.is_last:
            context["last_url"] = f"{request.path}?{poll.query(poll.said, is_last=True)}"
    return render_to_string(ANSWER, context)


def progress_headers(state: TaskState, *, request: HttpRequest, then: str = "") -> dict[str, str]:
    """Return the headers that the answer to a poll has besides: htmx 1, 2 and 4 go where ``HX-Redirect`` says.

    They don't put the answer into the page then, and what is there would ask again, and each answer would begin the
    way anew. So the bar first gets its last part, and that asks once to be sent on.
    """
    poll = bars.read_poll(request)
    if poll is None or not poll.is_last or not bars.is_done(state) or not _is_of_htmx(request):
        return {}
    target = safe_target(request, then)
    return {"HX-Redirect": target} if target else {}


def _is_of_htmx(request: HttpRequest) -> bool:
    return request.headers.get("HX-Request") == "true"


def _context(
    state: TaskState | None,
    poll: bars.Poll,
    *,
    request: HttpRequest,
    then: str,
    label: str,
    token: str,
    path: str = "",
) -> dict[str, Any]:
    label = label or _("Progress")
    context: dict[str, Any] = {"id": f"taskkit-{poll.bar}", "label": label, "is_done": False, "is_waiting": False}
    if state is None or state.status is Status.ABSENT:
        return {**context, "status": "unknown", "text": UNKNOWN, "spoken": UNKNOWN, "may_reload": True}
    status, percent, said = bars.status_of(state), bars.percent_of(state), bars.announced(state)
    context.update(
        status=str(status),
        text=sentence(state, status),
        is_done=bars.is_done(state),
        is_waiting=bars.is_waiting(state),
        percent=percent if bars.is_waiting(state) else None,
        is_renewal=poll.is_renewal,
        may_reload=status in _AGAIN,
    )
    if said != poll.said:
        context["spoken"] = _spoken(state, status, percent, label)
    if context["is_done"]:
        context["link"] = safe_target(request, then)
    if context["is_waiting"]:
        seconds = bars.interval(state, poll)
        base = path or _status_path(request, token or _token(state, request, then=then, label=label))
        context.update(
            url=f"{base}?{replace(poll, said=said).query(said)}", every=f"{seconds:g}", every_ms=round(seconds * 1000)
        )
    return context


def _spoken(state: TaskState, status: Status, percent: int | None, label: str) -> str:
    """Return what a screen reader says: what a task itself has said, and says anew all the time, is not in it."""
    if status is Status.RUNNING:
        text = name_of(status) if percent is None else _("%(percent)s%%") % {"percent": percent // 25 * 25}
    else:
        text = sentence(state, status)
    return _("%(label)s: %(text)s") % {"label": label, "text": text}


def _token(state: TaskState, request: HttpRequest, *, then: str, label: str) -> str:
    user = getattr(request, "user", None)
    return make_token(alias=state.cache, task_id=state.task_id, user=user, then=then, label=label)


def _status_path(request: HttpRequest, token: str) -> str:
    try:
        return reverse("taskkit:status", kwargs={"token": token}, current_app=getattr(request, "current_app", None))
    except NoReverseMatch as exc:
        raise ConfigurationError(
            "a progress bar asks 'taskkit:status' how its task stands, and the project has no such URL; put "
            'path("tasks/", include("django_taskkit.results.urls")) into its urls.py'
        ) from exc


def _reload_after(context: dict[str, Any], request: HttpRequest) -> int | None:
    """Return seconds after which a browser without JavaScript loads the page again; None: it doesn't.

    A script that puts HTML into a page makes elements of what is in a ``<noscript>``, and the page would be reloaded
    under its hands. So what a script has asked for has none.
    """
    by_script = "HX-Request" in request.headers or request.headers.get("Sec-Fetch-Dest", "document") not in (
        "document",
        "iframe",
        "frame",
    )
    return max(2, math.ceil(float(context["every"]))) if context["is_waiting"] and not by_script else None
