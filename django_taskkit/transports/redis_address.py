"""Where the Redis transport connects: an ordinary broker URL keeps its meaning beside a ``broker_transport``."""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import quote, urlparse

from django.core.exceptions import ImproperlyConfigured
from kombu.utils.url import as_url, maybe_sanitize_url, parse_url

SCHEMES = ("redis", "rediss", "sentinel", "socket")


def has_sentinels(client: Any) -> bool:
    """Whether a `kombu.Connection` goes by Redis Sentinel; a copy of it no longer has the URL that says so."""
    return "master_name" in client.transport_options


def parse_address(client: Any) -> None:
    """Have kombu parse the URL of a `kombu.Connection` as for its own Redis transports.

    Beside a transport that is named explicitly, kombu would drop the scheme: ``rediss://`` would be sent in clear.
    """
    url = client.hostname
    if not url or "://" not in url:
        return
    scheme, shown = urlparse(url).scheme, maybe_sanitize_url(url)
    if scheme not in SCHEMES:
        raise ImproperlyConfigured(
            f"broker_transport is django_taskkit.transports.redis, but broker_url is {shown!r}: give a URL "
            f"that starts with {', '.join(f'{name}://' for name in SCHEMES)}, or drop broker_transport."
        )
    if has_sentinels(client) != (scheme == "sentinel"):
        raise ImproperlyConfigured(
            f"broker_url is {shown!r}, but broker_transport_options has {'a' if has_sentinels(client) else 'no'} "
            '"master_name": a sentinel:// URL needs the name of the master, and no other URL has one.'
        )
    if scheme != "socket":  # the transport itself reads that one
        ours = client.transport_cls
        parsed = {name: value for name, value in parse_url(url).items() if value is not None}
        client._init_params(**{**client._initial_params, "hostname": None, **parsed})
        client.transport_cls = ours


def keep_transport(client: Any) -> None:
    """Have a `kombu.Connection` keep its transport when it turns to the next of several URLs.

    kombu's `switch` takes the transport from the scheme of the new URL, which would be kombu's own.
    """
    client.switch = functools.partial(_switch, client, client.transport_cls)


def _switch(client: Any, transport: Any, url: str) -> None:
    type(client).switch(client, url)
    client.transport_cls = transport


def address(client: Any, hostname: str, include_password: bool, mask: str) -> str:
    """The URL that `client` stands for, for logs and banners."""
    if "://" in hostname:
        return str(hostname if include_password else maybe_sanitize_url(hostname, mask))
    scheme = "sentinel" if has_sentinels(client) else "rediss" if client.ssl else "redis"
    where = (hostname, client.port or client.transport.default_port, client.userid, client.password)
    path = quote(str(client.virtual_host or ""))
    return str(as_url(scheme, *where, path, sanitize=not include_password, mask=mask))
