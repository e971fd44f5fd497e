"""Views of a ``ResultCache``, and of how a task stands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from asgiref.sync import sync_to_async
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.datastructures import MultiValueDictKeyError
from django.utils.translation import gettext as _
from django.views import View
from django.views.decorators.http import require_safe

from django_taskkit.results.calling import acall, call, outside_transactions
from django_taskkit.results.responses import PAGE, Shown, is_acceptable, not_acceptable, refusal, respond
from django_taskkit.results.status import Authorize, status_response
from django_taskkit.results.tokens import MAX_AGE

if TYPE_CHECKING:
    from django_taskkit.results.cache import ResultCache

logger = logging.getLogger("django_taskkit")

Arguments = Callable[..., Any]
"""From request and URL to the arguments of the call, by name; may be async."""
May = Callable[[HttpRequest, Mapping[str, Any]], Any]
"""Says whether who asks may have the result of a call with these arguments; may be async."""


def task_view(
    cache: ResultCache, *, arguments: Arguments | None = None, authorize: May | None = None, **shown: Any
) -> Callable[..., HttpResponseBase]:
    """Return a view that answers with a result of ``cache``, or with where to ask for it::

        path("reports/<int:year>/", task_view(yearly, template_name="report.html"))

    Whoever may see the page may have the task sent. Put ``login_required`` or the like around it, as around any view.

    Args:
        arguments: takes the request and what the URL has captured, by name, and returns a dict with the arguments of
            the call; without it they are what the URL has captured. If it raises a ValueError, TypeError,
            ValidationError or misses a parameter, the client is told that the address makes no sense.
        authorize: takes the request and the dict of arguments, before anything is looked at or sent; if it says no, the
            answer is 403.
        shown: how a result is shown: ``template_name``, ``render``, ``encoder``, ``content_type``, ``label``, ``then``,
            ``status_url``, ``max_age``; see :class:`~django_taskkit.results.responses.Shown`.
    """
    how = Shown(**shown)

    @require_safe
    def view(request: HttpRequest, /, **captured: Any) -> HttpResponseBase:
        if not is_acceptable(request, how):
            return not_acceptable(request, how)
        try:
            given = captured if arguments is None else call(arguments, request, **captured)
        except BAD_INPUT as exc:
            return _bad_request(request, cache, exc)
        if authorize is not None and not call(authorize, request, given):
            raise PermissionDenied
        try:
            state = cache.get_or_dispatch(**given)
        except (TypeError, ValueError) as exc:
            return _misfit(request, cache, given, exc)
        return respond(request, state, replace(how, arguments=given))

    return view


def atask_view(
    cache: ResultCache, *, arguments: Arguments | None = None, authorize: May | None = None, **shown: Any
) -> Callable[..., Any]:
    """Return :func:`task_view` as an async view, for ASGI. Hooks that are async are awaited in the event loop."""
    how = Shown(**shown)

    @outside_transactions
    @require_safe
    async def view(request: HttpRequest, /, **captured: Any) -> HttpResponseBase:
        # Templates, hooks and request.user may ask the database, so all but the waiting is done in a thread.
        if not is_acceptable(request, how):
            return await sync_to_async(not_acceptable)(request, how)
        try:
            given = captured if arguments is None else await acall(arguments, request, **captured)
        except BAD_INPUT as exc:
            return await sync_to_async(_bad_request)(request, cache, exc)
        if authorize is not None and not await acall(authorize, request, given):
            raise PermissionDenied
        try:
            state = await cache.aget_or_dispatch(**given)
        except (TypeError, ValueError) as exc:
            return await sync_to_async(_misfit)(request, cache, given, exc)
        return await sync_to_async(respond)(request, state, replace(how, arguments=given))

    return view


class TaskStatusView(View):
    """How a task stands, for whoever has its token.

    To decide who may know, put one of your own in the place of the shipped one, and name it with ``status_url``::

        path("exports/<str:token>/status/", TaskStatusView.as_view(authorize=is_staff), name="export-status")
    """

    http_method_names: ClassVar[list[str]] = ["get", "head"]  # type: ignore[misc]
    authorize: Authorize | None = None
    """Takes request, state and pointer; asked after the token was found good for this user."""
    max_age: int = MAX_AGE
    """Seconds for which a token is good."""
    template_name: str = PAGE

    def get(self, request: HttpRequest, token: str) -> HttpResponse:
        return status_response(
            request, token, authorize=self.authorize, max_age=self.max_age, template_name=self.template_name
        )


BAD_INPUT = (ValueError, TypeError, ValidationError, MultiValueDictKeyError)
"""What reading a request raises if the client has sent what it shouldn't."""


def _bad_request(request: HttpRequest, cache: ResultCache, exc: Exception) -> HttpResponse:
    logger.warning("%s: no arguments for %s: %s: %s", request.path, cache.task_name, type(exc).__name__, exc)
    return refusal(request, 400, _("This address, or what was sent with it, makes no sense here."))


def _misfit(request: HttpRequest, cache: ResultCache, given: Mapping[str, Any], exc: Exception) -> HttpResponse:
    """Tell the client that the arguments don't fit, if that is what went wrong."""
    try:
        cache.key(**given)
    except (TypeError, ValueError):
        return _bad_request(request, cache, exc)
    raise exc
