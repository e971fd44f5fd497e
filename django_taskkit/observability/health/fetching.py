"""Ask a web process how it is, with nothing but the standard library."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from django_taskkit.observability.health.files import AddressError


def fetch(url: str, host: str | None, timeout: float) -> tuple[list[str], list[str]]:
    """Return what is well and what is not with the web process at ``url``; redirects are not followed.

    Args:
        host: the Host header; None: that of the URL.
        timeout: seconds.

    Raises:
        AddressError: ``url`` is none.
    """
    try:
        parts = urlsplit(url)
        host_name, port = parts.hostname, parts.port
    except ValueError:
        host_name = None
    if not host_name or parts.scheme not in ("http", "https") or not url.isprintable() or " " in url:
        raise AddressError(f"--url is {url!r}; give one such as http://127.0.0.1:8000/healthz")
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(host_name, port, timeout=timeout)
    try:
        wanted = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", wanted, headers={"Host": host} if host else {})
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
