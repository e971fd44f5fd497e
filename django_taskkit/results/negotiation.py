"""Which of two forms a client wants: JSON or HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from django.http import HttpRequest

HTML: Final = "text/html"
JSON: Final = "application/json"


def preferred(request: HttpRequest, offered: Sequence[str]) -> str | None:
    """Return the media type that the client likes best; the first one if it has no preference, None if it takes none.

    Args:
        offered: media types, the default first.
    """
    if not request.headers.get("Accept", "").strip():
        return offered[0]
    return request.get_preferred_type(offered)


def is_fragment_request(request: HttpRequest) -> bool:
    """Say whether a script asks for the part of a page that changes, and not for the page."""
    return request.headers.get("HX-Request") == "true" or "fragment" in request.GET
