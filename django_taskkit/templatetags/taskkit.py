"""Progress bars in templates: ``{% load taskkit %}``, ``{% task_progress_media %}``, ``{% task_progress state %}``."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from django import template
from django.http import HttpRequest
from django.template.context import Context
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

from django_taskkit.exceptions import ConfigurationError, StoreError
from django_taskkit.results import bars
from django_taskkit.results.fragments import render_progress
from django_taskkit.results.outline import safe_target
from django_taskkit.results.runs import look_up
from django_taskkit.results.state import Status, TaskState

register = template.Library()

STAY: Final = "stay"

_HAS_MEDIA: Final = "taskkit_has_media"


@register.simple_tag(takes_context=True)
def task_progress_media(context: Context) -> SafeString:
    """Return the style sheet and the script of the progress bars, for the ``<head>``.

    The first bar of a page brings them along if the page has not. With a ``csp_nonce`` in the context (Django's own,
    or that of django-csp) both carry it.
    """
    request = context.get("request")
    if request is not None:
        setattr(request, _HAS_MEDIA, True)
    nonce = context.get("csp_nonce") or getattr(request, "csp_nonce", "")
    attribute = format_html(' nonce="{}"', nonce) if nonce else ""
    return format_html(
        '<link rel="stylesheet" href="{}"{}><script src="{}" defer{}></script>',
        static("django_taskkit/progress.css"),
        attribute,
        static("django_taskkit/progress.js"),
        attribute,
    )


@register.simple_tag(takes_context=True)
def task_progress(
    context: Context, state: Any, *, then: Any = "", label: Any = "", poll_every: Any = None, stale: bool = False
) -> SafeString:
    """Return a progress bar for ``state``; nothing where the page has its value, or where nobody has asked for one.

    Args:
        state: what ``ResultCache.get_or_dispatch`` or ``peek`` has returned.
        then: where to go when the task is done. Empty: to this page, whose view then has the value; ``"stay"``:
            nowhere; else a URL of this host.
        label: what the task is called.
        poll_every: seconds between two polls; None: as the state says.
        stale: whether to show that a newer value is being made, where there is an older one.

    Raises:
        ConfigurationError: the template has no request, or the project not the URLs of ``django_taskkit.results``.
        TypeError, ValueError: an argument makes no sense.
    """
    request = _request(context)
    if not isinstance(state, TaskState):
        raise TypeError(
            f"{{% task_progress %}} was given {state!r:.80}; give it what ResultCache.get_or_dispatch() has returned"
        )
    target = _target(request, then)
    every = bars.check_every(poll_every)
    if state.status is Status.ABSENT or (state.status is Status.STALE and not stale):
        return SafeString()
    if bars.is_done(state) and not then:
        return SafeString()
    bar = render_progress(_as_it_is_now(state), request=request, then=target, label=str(label or ""), poll_every=every)
    return bar if _has_media(context, request) else task_progress_media(context) + bar


def _has_media(context: Context, request: HttpRequest) -> bool:
    """Say whether the page has style sheet and script, or is none: a part of one that a script has asked for."""
    is_part = request.headers.get("HX-Request") == "true" or request.headers.get("Sec-Fetch-Dest") == "empty"
    return is_part or any(getattr(one, _HAS_MEDIA, False) for one in (request, context.get("request")))


def _request(context: Context) -> HttpRequest:
    request: Any = getattr(context, "request", None) or context.get("request")
    if request is None:
        raise ConfigurationError(
            "{% task_progress %} needs the request in the template's context; use django.shortcuts.render(request, …), "
            "or give the request to render_to_string()"
        )
    django_request: HttpRequest = getattr(request, "_request", request)  # that of Django REST framework holds it
    return django_request


def _as_it_is_now(state: TaskState) -> TaskState:
    """Return ``state``, or how the task stands now if it is done.

    A bar goes to its page when the task is done. If that page then still says that one has to wait, it would do so
    again and again; this bar shows that it is done, and stays.
    """
    if not bars.is_waiting(state) or state.dispatched or not state.task_id:
        return state
    try:
        fresh = look_up(state.cache, state.task_id)
    except StoreError:
        return state
    return fresh if fresh is not None and bars.is_done(fresh) else state


def _target(request: HttpRequest, then: Any) -> str:
    if not then:
        return _page(request)
    if then == STAY:
        return ""
    target = safe_target(request, str(then))
    if not target:
        raise ValueError(
            f"then is {str(then)!r:.200}, which is not on {request.get_host()}; give a URL of this site, "
            f'or then="{STAY}" and a link of your own'
        )
    return target


def _page(request: HttpRequest) -> str:
    """Return the address of the page that the bar is on, which is not that of a part that a script has asked for."""
    headers = request.headers
    if headers.get("HX-Request") == "true" and headers.get("HX-Boosted") != "true":
        address = headers.get("HX-Current-URL", "")
    elif headers.get("Sec-Fetch-Dest", "document") == "empty":
        address = headers.get("Referer", "")
    else:
        address = ""
    if address and safe_target(request, address):
        return urlunsplit(("", "", *urlsplit(address)[2:4], ""))
    return request.get_full_path()
