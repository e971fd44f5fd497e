"""A state as an HTTP response: the value, or 202 and where to ask, or what went wrong without saying how."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse
from django.utils.cache import get_conditional_response, patch_cache_control, patch_vary_headers
from django.utils.functional import Promise
from django.utils.translation import gettext as _

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.results.fragments import render_progress
from django_taskkit.results.negotiation import HTML, JSON, preferred
from django_taskkit.results.outline import outline, safe_target
from django_taskkit.results.state import Status, TaskState
from django_taskkit.results.tokens import make_token

logger = logging.getLogger("django_taskkit")

PAGE: Final = "django_taskkit/status.html"
"""The template of pages that a project has none for."""

CODES: Final = {
    Status.PENDING: 202,
    Status.RUNNING: 202,
    Status.RETRYING: 202,
    # Not 502: many a proxy takes that for a web server that is down, and asks the next one.
    Status.FAILED: 500,
    Status.LOST: 503,
    Status.REFUSED: 503,
    Status.ABSENT: 404,
}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """How a state is shown."""

    template_name: str | None = None
    """An HTML page for every state; its context has ``state``, ``value``, ``arguments`` and ``label``. Without one a
    value is JSON, and who waits in a browser sees a progress bar."""
    render: Callable[[HttpRequest, TaskState], HttpResponseBase] | None = None
    """Makes the response of a value, for a file or anything else; the headers for caching are added to it."""
    encoder: type[json.JSONEncoder] = DjangoJSONEncoder
    content_type: str = JSON
    """The media type of a value as JSON."""
    label: str | Promise = ""
    """What the task is called on the page of who waits."""
    then: str | None = None
    """Where that page goes when there is a value; None: to the address that was asked for."""
    status_url: str | None = "taskkit:status"
    """Name of the URL that tells who waits how the task stands, with a ``token``; None: there is none, and who waits
    asks for the result itself again."""
    max_age: int | None = 0
    """Seconds, at most, for which a browser may use a value without asking; None: as long as it is fresh. It doesn't
    hear of an invalidation meanwhile."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of the call, for the template."""


def state_response(request: HttpRequest, state: TaskState, **shown: Any) -> HttpResponseBase:
    """Return ``state`` as a response, JSON or HTML as the client likes.

    A value is 200 with ``ETag``, ``Age`` and ``Cache-Control``, or 304; who has to wait gets 202 with ``Location`` and
    ``Retry-After``; a failure is 500, and what could not be sent 503. It works with a request of Django REST framework
    too.

    Args:
        shown: see :class:`Shown`.

    Raises:
        TypeError: the value can't be JSON; the message names the remedy.
        ConfigurationError: the URLs of ``django_taskkit.results`` are not in the project's.
    """
    return respond(request, state, Shown(**shown))


def respond(request: HttpRequest, state: TaskState, shown: Shown) -> HttpResponseBase:
    """Do what :func:`state_response` does."""
    response = (_value if state.has_value else _no_value)(request, state, shown)
    patch_vary_headers(response, ["Accept", "Cookie"])
    return response


def refusal(request: HttpRequest, code: int, text: str, *, form: str | None = None) -> HttpResponse:
    """Return ``text`` as the reason for which there is nothing else, JSON or HTML."""
    form = form or preferred(request, [JSON, HTML])
    response: HttpResponse
    if form == HTML:
        response = HttpResponse(render_to_string(PAGE, {"message": text}, request), status=code)
    else:
        response = JsonResponse({"detail": text}, status=code)
    response["Cache-Control"] = "no-store"
    patch_vary_headers(response, ["Accept", "Cookie"])
    if code >= 500:
        _not_another_error(response)
    return response


def _not_another_error(response: HttpResponse) -> None:
    """Keep Django from mailing to the admins that somebody looks at what went wrong: it is told where it happens."""
    response._has_been_logged = True  # type: ignore[attr-defined]


def is_acceptable(request: HttpRequest, shown: Shown) -> bool:
    """Say whether the client takes any of the forms that a value may have."""
    return shown.render is not None or preferred(request, _forms_of_value(shown)) is not None


def not_acceptable(request: HttpRequest, shown: Shown) -> HttpResponse:
    """Say which forms there are."""
    forms = ", ".join(_forms_of_value(shown))
    return refusal(request, 406, _("There is nothing here in a form that you accept; there is: %s.") % forms)


# -- with a value


def _forms_of_value(shown: Shown) -> list[str]:
    return [HTML, shown.content_type] if shown.template_name else [shown.content_type]


def _value(request: HttpRequest, state: TaskState, shown: Shown) -> HttpResponseBase:
    if shown.render is not None:
        response = shown.render(request, state)
        etag = response.get("ETag") or _etag(state.value_id, "rendered")
    else:
        form = preferred(request, _forms_of_value(shown))
        if form is None:
            return not_acceptable(request, shown)
        if form == HTML:
            # A page has more in it than the value, such as who is logged in: only the same page is the same.
            page = HttpResponse(_page(request, state, shown))
            response, etag = page, _etag(hashlib.sha256(page.content).hexdigest(), form)
        else:
            etag = _etag(state.value_id, form)
            response = get_conditional_response(request, etag=etag) or HttpResponse(
                _json(state.value, shown), content_type=form
            )
    if response.status_code not in (200, 304):
        return response  # what a project renders may be a way to somewhere else, such as a signed address
    if etag:
        response["ETag"] = etag
    _allow_caching(response, state, shown)
    answer: HttpResponseBase | None = get_conditional_response(request, etag=etag, response=response)  # type: ignore[arg-type]
    if answer is None or answer is response:
        return response
    answer["Age"] = response["Age"]
    # What it holds open is closed with the answer; its own close() would end the request.
    answer._resource_closers.extend(response._resource_closers)  # type: ignore[attr-defined]
    return answer


def _etag(identity: str, form: str) -> str:
    """Return a weak one: middleware may still compress what it names."""
    return f'W/"{hashlib.sha256(f"{form} {identity}".encode()).hexdigest()[:32]}"' if identity else ""


def _allow_caching(response: HttpResponseBase, state: TaskState, shown: Shown) -> None:
    age = max(0, int(state.age or 0))
    response["Age"] = str(age)
    if response.has_header("Cache-Control"):
        return
    if state.status is Status.STALE:
        left = 0
    elif state.expires_in is None:
        # Only an invalidation ends it, and nobody tells the browser: it has to ask, which costs a 304.
        patch_cache_control(response, private=True, no_cache=True)
        return
    else:
        left = max(0, int(state.expires_in))
    if shown.max_age is not None:
        left = min(left, shown.max_age)
    # A client takes what has passed already, the Age, off max-age.
    patch_cache_control(response, private=True, max_age=age + left if left else 0)


def _json(value: Any, shown: Shown) -> str:
    try:
        return json.dumps(value, cls=shown.encoder, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise TypeError(
            f"the value, a {type(value).__qualname__}, can't be sent as JSON: {exc}; give an `encoder=` that knows "
            "how, `template_name=` for a page, or `render=` for a file"
        ) from exc


# -- without one


def _no_value(request: HttpRequest, state: TaskState, shown: Shown) -> HttpResponseBase:
    form = preferred(request, _forms_of_waiting(shown)) or JSON
    then = request.get_full_path() if shown.then is None else shown.then
    token = _token(request, state, then, shown)
    location = "" if shown.status_url is None or not token else _location(shown.status_url, token)
    response: HttpResponse
    code = CODES[state.status]
    if form == HTML:
        response = HttpResponse(_page(request, state, shown, then=then, path=location), status=code)
    else:
        said = outline(state, result_url=safe_target(request, then))
        response = JsonResponse({**said, "status_url": location or None}, status=code)
    if location:
        response["Location"] = location
    if state.retry_after is not None:
        response["Retry-After"] = str(state.retry_after)
    response["Cache-Control"] = "no-store"
    if code >= 500:
        logger.info("%s: there is no value, the task %s is %s", request.path, state.task_id or "-", state.status)
        _not_another_error(response)
    return response


def _forms_of_waiting(shown: Shown) -> list[str]:
    if shown.template_name:
        return [HTML, JSON]
    return [JSON, HTML] if shown.status_url else [JSON]  # a progress bar has to ask somewhere


def _token(request: HttpRequest, state: TaskState, then: str, shown: Shown) -> str:
    if not state.is_waiting or not state.task_id:
        return ""
    user = getattr(request, "user", None)
    return make_token(alias=state.cache, task_id=state.task_id, user=user, then=then, label=str(shown.label))


def _location(name: str, token: str) -> str:
    try:
        return reverse(name, kwargs={"token": token})
    except NoReverseMatch as exc:
        raise ConfigurationError(
            f"who waits for a result is sent to {name!r}, and the project has no such URL; put "
            'path("tasks/", include("django_taskkit.results.urls")) into its urls.py, name another with '
            "status_url=, or switch it off with status_url=None"
        ) from exc


def _page(request: HttpRequest, state: TaskState, shown: Shown, *, then: str = "", path: str = "") -> str:
    context = {"state": state, "value": state.value, "arguments": shown.arguments, "label": shown.label}
    if shown.template_name:
        return render_to_string(shown.template_name, context, request)
    return waiting_page(request, state, then=then, path=path, label=str(shown.label))


def waiting_page(
    request: HttpRequest, state: TaskState, *, then: str, path: str, label: str, template_name: str = PAGE
) -> str:
    """Return a page of its own with the progress bar."""
    progress = render_progress(state, request=plain(request), then=then, label=label, path=path)
    return render_to_string(template_name, {"state": state, "label": label, "progress": progress}, request)


def plain(request: HttpRequest) -> HttpRequest:
    """Return Django's own request, also of one that Django REST framework has made of it."""
    return getattr(request, "_request", request)
