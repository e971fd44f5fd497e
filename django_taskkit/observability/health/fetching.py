"""Ask a web process how it is, with nothing but the standard library."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit


def fetch(url: str, host: str | None, timeout: float) -> tuple[list[str], list[str]]:
    """Return what is well and what is not with the web process at ``url``; redirects are not followed.

    Args:
        host: the Host header; None: that of the URL.
        timeout: seconds.
    """
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=timeout)
    try:
        connection.request("GET", parts.path or "/", headers={"Host": host} if host else {})
        answer = connection.getresponse()
        body = answer.read(1000).decode("utf-8", "replace").strip()
    except (OSError, HTTPException) as exc:
        return [], [f"web {url} does not answer: {type(exc).__name__}: {exc}"]
    finally:
        connection.close()
    if answer.status == 200:
        return [f"web {url} is well"], []
    hint = "; give --host one of ALLOWED_HOSTS" if answer.status == 400 and not host else ""
    return [], [f"web {url} says {answer.status}{hint}{f': {body}' if answer.status == 503 else ''}"]
