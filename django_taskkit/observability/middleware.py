"""The id of a web request: taken from its header, or made; on its response, its log lines and the tasks it starts."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse

from django_taskkit.request_ids import of_request

HEADER = "X-Request-ID"
"""What proxies and Heroku call it."""

LONGEST = 128

_SAFE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:/+=@~-]{{0,{LONGEST - 1}}}")
"""No space, no quote, no line end: it goes into logs, headers and messages as it is."""


class RequestIDMiddleware:
    """Give every web request an id, as ``request.request_id``; put it first in ``MIDDLEWARE``.

    The id of the header ``X-Request-ID`` is taken if it has at most 128 characters, and none but letters, digits and
    ``. _ : / + = @ ~ -``; otherwise one is made. The proxy in front of Django decides whether to hand on what comes
    from outside: whoever sets the header chooses what stands in the log. The response has the same header.

    Every task that is started while the request is served, ``on_commit`` and the parts of a streamed response
    included, carries the id, and so does everything that those tasks start.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._answer_async(request)
        request_id = _take(request)
        with _served(request_id):
            response = cast("HttpResponseBase", self.get_response(request))
        return _tell(response, request_id)

    async def _answer_async(self, request: HttpRequest) -> HttpResponseBase:
        request_id = _take(request)
        with _served(request_id):
            response = await cast("Awaitable[HttpResponseBase]", self.get_response(request))
        return _tell(response, request_id)


@contextmanager
def _served(request_id: str) -> Iterator[None]:
    token = of_request.set(request_id)
    try:
        yield
    finally:
        of_request.reset(token)


def _take(request: HttpRequest) -> str:
    given = request.headers.get(HEADER, "")
    request_id = given if _SAFE.fullmatch(given) else uuid.uuid4().hex
    request.request_id = request_id  # type: ignore[attr-defined]
    return request_id


def _tell(response: HttpResponseBase, request_id: str) -> HttpResponseBase:
    response.headers[HEADER] = request_id
    if isinstance(response, StreamingHttpResponse) and not getattr(response, "file_to_stream", None):
        content: Any = response.streaming_content
        response.streaming_content = (  # type: ignore[method-assign,assignment,unused-ignore]
            _parts_async(content, request_id) if response.is_async else _parts(iter(content), request_id)
        )
    return response


def _parts(content: Iterator[bytes], request_id: str) -> Iterator[bytes]:
    """Make each part with the id set: what runs between two parts is the server."""
    while True:
        with _served(request_id):
            try:
                part = next(content)
            except StopIteration:
                return
        yield part


async def _parts_async(content: AsyncIterator[bytes], request_id: str) -> AsyncIterator[bytes]:
    parts = aiter(content)
    while True:
        with _served(request_id):
            try:
                part = await anext(parts)
            except StopAsyncIteration:
                return
        yield part
