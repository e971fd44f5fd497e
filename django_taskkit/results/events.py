"""How a task stands, told as it changes: server-sent events, for ASGI.

Nobody is subscribed to anything: the state is read from the cache, once a second for each client, and what has changed
is told. A connection ends by itself after some minutes, and the browser opens a new one.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar, Final

from asgiref.sync import SyncToAsync, sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections, connections
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views import View

from django_taskkit.results.bars import is_waiting
from django_taskkit.results.calling import outside_transactions
from django_taskkit.results.negotiation import JSON
from django_taskkit.results.outline import outline, safe_target
from django_taskkit.results.responses import refusal
from django_taskkit.results.runs import look_up
from django_taskkit.results.state import Status, TaskState
from django_taskkit.results.status import Authorize, NotTold, admit
from django_taskkit.results.tokens import MAX_AGE

logger = logging.getLogger("django_taskkit")

LAST: Final = "end"
"""Name and id of the last event. A browser that opens the stream again after it is told that there is no more."""

RETRY: Final = 3
"""Seconds after which a browser opens a new connection when one has ended."""


@method_decorator(outside_transactions, name="dispatch")
class TaskEventsView(View):
    """Tells how a task stands until it is done: events ``progress``, and at the end one ``end``.

    Under WSGI, where each connection would keep a worker of the web server busy, the answer is 501.
    """

    http_method_names: ClassVar[list[str]] = ["get"]  # type: ignore[misc]
    authorize: Authorize | None = None
    """As that of :class:`~django_taskkit.results.views.TaskStatusView`."""
    max_age: int = MAX_AGE
    """Seconds for which a token is good."""
    interval: float = 1.0
    """Seconds between two looks into the cache."""
    keep_alive: float = 15.0
    """Seconds after which something is sent even if there is nothing new, so that no proxy closes the connection."""
    lifetime: float = 300.0
    """Seconds after which the connection ends."""

    async def get(self, request: HttpRequest, token: str) -> HttpResponseBase:
        if not isinstance(request, ASGIRequest):
            text = _("Events need an ASGI server. Ask for the status every few seconds instead.")
            return refusal(request, 501, text, form=JSON)
        if request.headers.get("Last-Event-ID") == LAST:
            return HttpResponse(status=204)
        try:
            pointer, state = await sync_to_async(admit)(request, token, authorize=self.authorize, max_age=self.max_age)
        except NotTold as exc:
            return refusal(request, exc.code, str(exc), form=JSON)

        def look() -> TaskState | None:
            try:
                return look_up(pointer.alias, pointer.task_id)
            finally:
                close_old_connections()  # no request ends in this thread

        # Django 5.2's GZipMiddleware keeps back what is written until there is enough of it.
        request.META.pop("HTTP_ACCEPT_ENCODING", None)
        return StreamingHttpResponse(
            _stream(
                state,
                # A thread that is shared with others, and not the one that Django keeps for a request while it lasts.
                sync_to_async(look, thread_sensitive=False),
                result_url=safe_target(request, pointer.then),
                interval=self.interval,
                keep_alive=self.keep_alive,
                lifetime=self.lifetime,
            ),
            content_type="text/event-stream",
            headers={"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"},
        )


async def _stream(
    state: TaskState | None,
    look: Callable[[], Awaitable[TaskState | None]],
    *,
    result_url: str,
    interval: float,
    keep_alive: float,
    lifetime: float,
) -> AsyncIterator[str]:
    now = asyncio.get_running_loop().time
    ends, spoken = now() + lifetime, now()
    told: dict[str, Any] = {}
    await _let_go()
    yield f"retry: {RETRY * 1000}\n\n"
    while True:
        state = state or TaskState(status=Status.ABSENT)
        said = outline(state, result_url=result_url)
        if not is_waiting(state):
            yield _event(LAST, said, f"id: {LAST}\n")
            return
        if said != told:
            told, spoken = said, now()
            yield _event("progress", said)
        elif now() - spoken >= keep_alive:
            spoken = now()
            yield ": still there\n\n"
        if now() + interval > ends:
            return
        await asyncio.sleep(interval)
        try:
            state = await look()
        except Exception as exc:  # the browser comes again, and then it may be better
            logger.warning("how a task stands can't be looked at: %r", exc)
            return


def _event(name: str, said: dict[str, Any], more: str = "") -> str:
    return f"{more}event: {name}\ndata: {json.dumps(said)}\n\n"


async def _let_go() -> None:
    """Give back what Django keeps for a request until its response is sent: database connections, and a thread."""
    await sync_to_async(_close_connections)()
    context = SyncToAsync.thread_sensitive_context.get(None)
    if context is not None and getattr(context, "_executor", None) is None:  # that one would be the server's own
        executor = SyncToAsync.context_to_thread_executor.pop(context, None)
        if executor is not None:
            executor.shutdown(wait=False)


def _close_connections() -> None:
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
