"""How a task stands, for whoever has its token: JSON, a page, or the part of a page that changes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from django.core.signing import BadSignature, SignatureExpired
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _

from django_taskkit.exceptions import StoreError
from django_taskkit.results.bars import is_done, is_waiting
from django_taskkit.results.calling import call
from django_taskkit.results.fragments import progress_headers, render_progress
from django_taskkit.results.negotiation import HTML, JSON, is_fragment_request, preferred
from django_taskkit.results.outline import outline, safe_target
from django_taskkit.results.responses import PAGE, plain, refusal, waiting_page
from django_taskkit.results.runs import look_up
from django_taskkit.results.state import Status, TaskState
from django_taskkit.results.tokens import MAX_AGE, Pointer, read_token, user_key

logger = logging.getLogger("django_taskkit")

Authorize = Callable[[HttpRequest, TaskState, Pointer], Any]
"""Says whether who asks may know; may be async."""

RETRY_AFTER: Final = 5
"""Seconds after which it is worth asking again where the cache is out of reach."""


class NotTold(Exception):
    """Who asks is told nothing of the task; ``code`` and the text say why."""

    def __init__(self, code: int, text: str, *, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.retry_after = retry_after


def admit(
    request: HttpRequest, token: str, *, authorize: Authorize | None = None, max_age: int = MAX_AGE
) -> tuple[Pointer, TaskState]:
    """Return what ``token`` points to and how that stands, if who asks may know; ABSENT: nobody knows any more.

    A token of another user and one that is forged look the same from outside.

    Raises:
        NotTold: it is not to be told.
    """
    unknown = NotTold(404, _("There is no such task, or it isn't yours."))
    try:
        pointer = read_token(token, max_age=max_age)
    except SignatureExpired:
        raise NotTold(410, _("This link has expired. Ask for the result again.")) from None
    except BadSignature:
        raise unknown from None
    if pointer.user and pointer.user != user_key(getattr(request, "user", None)):
        raise unknown
    try:
        state = look_up(pointer.alias, pointer.task_id)
    except StoreError as exc:
        logger.warning("how the task %s stands can't be looked at: %s", pointer.task_id, exc)
        raise NotTold(503, _("This can't be looked up at the moment."), retry_after=RETRY_AFTER) from exc
    if state is None:
        state = TaskState(status=Status.ABSENT, task_id=pointer.task_id, cache=pointer.alias)
    if authorize is not None and not call(authorize, request, state, pointer):
        raise unknown
    return pointer, state


def status_response(
    request: HttpRequest,
    token: str,
    *,
    authorize: Authorize | None = None,
    max_age: int = MAX_AGE,
    template_name: str = PAGE,
) -> HttpResponse:
    """Return how the task stands that ``token`` points to; works with a request of Django REST framework too.

    Args:
        authorize: called with request, state and pointer; only if it says yes, and the token is not another user's,
            anything is told.
        max_age: seconds for which a token is good.
        template_name: the page, for a browser.
    """
    is_fragment = is_fragment_request(request)
    form = HTML if is_fragment else preferred(request, [JSON, HTML])
    if form is None:
        return refusal(request, 406, _("There is nothing here in a form that you accept; there is: %s.") % _FORMS)
    try:
        pointer, state = admit(request, token, authorize=authorize, max_age=max_age)
    except NotTold as exc:
        return _not_told(request, exc, form, is_fragment=is_fragment)
    then = safe_target(request, pointer.then)
    code = 404 if state.status is Status.ABSENT else 200
    response: HttpResponse
    if is_fragment:
        known = None if state.status is Status.ABSENT else state
        part = render_progress(known, request=plain(request), then=then, label=pointer.label, path=request.path)
        response = HttpResponse(part, headers=progress_headers(state, request=plain(request), then=then))
    elif form == JSON:
        response = JsonResponse(outline(state, result_url=then), status=code)
    elif then and (is_done(state) or state.status in (Status.LOST, Status.ABSENT)):
        response = HttpResponse(status=303, headers={"Location": then})  # which sends it again if it has to
    else:
        page = waiting_page(
            request, state, then=then, path=request.path, label=pointer.label, template_name=template_name
        )
        response = HttpResponse(page, status=code)
    if is_waiting(state) and state.retry_after is not None:
        response["Retry-After"] = str(state.retry_after)
    return _unkept(response)


def _not_told(request: HttpRequest, reason: NotTold, form: str, *, is_fragment: bool) -> HttpResponse:
    if is_fragment and reason.retry_after is None:
        # The last part of a page that has polled until now. htmx shows nothing of an error, and would ask for ever.
        code = 200 if request.headers.get("HX-Request") == "true" else reason.code
        return _unkept(HttpResponse(render_progress(None, request=plain(request)), status=code))
    response = refusal(request, reason.code, str(reason), form=form)
    if reason.retry_after is not None:
        response["Retry-After"] = str(reason.retry_after)
    return response


def _unkept(response: HttpResponse) -> HttpResponse:
    response["Cache-Control"] = "no-store"
    patch_vary_headers(response, ["Accept", "Cookie", "HX-Request"])
    return response


_FORMS: Final = f"{JSON}, {HTML}"
