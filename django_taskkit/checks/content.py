"""What messages may contain, and who may read and forge them on their way."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from celery import Celery
from django.core.checks import CheckMessage
from kombu import serialization
from kombu.serialization import prepare_accept_content

from django_taskkit.checks.configuration import own_tasks, settings_of, written
from django_taskkit.checks.registration import error, warning

registry: Any = serialization.registry  # type: ignore[attr-defined]

CAN_RUN_CODE = ("application/x-python-serialize",)


def refused_by_our_own(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.E018: what the project sends has a content type that its workers don't accept, or that nobody knows."""
    settings = settings_of(app)
    accepted = _types(settings.accept_content)
    results = accepted if settings.result_accept_content is None else _types(settings.result_accept_content)
    yield from _refused(app, "task_serializer", settings.task_serializer, "accept_content", accepted)
    key = "accept_content" if settings.result_accept_content is None else "result_accept_content"
    yield from _refused(app, "result_serializer", settings.result_serializer, key, results)
    for name, task in own_tasks(app):
        serializer = getattr(task, "serializer", None)
        if serializer and serializer != settings.task_serializer and _type(serializer) not in accepted:
            yield error(
                "E018",
                f"Its serializer {serializer!r} is not among {written(app, 'accept_content')}: workers drop its "
                "messages unread.",
                f"Take it out, or add {serializer!r} to {written(app, 'accept_content')}.",
                obj=name,
            )


def _refused(app: Celery, key: str, serializer: Any, among: str, accepted: set[str]) -> Iterator[CheckMessage]:
    if not isinstance(serializer, str) or _type(serializer) in accepted:
        return
    known = serializer in registry.name_to_type
    what = f"not among {written(app, among)}" if known else "none that kombu knows"
    lost = "workers drop every message unread" if key == "task_serializer" else "no result can be read"
    yield error(
        "E018",
        f"{written(app, key)} is {serializer!r}, which is {what}: {lost}.",
        f"Use 'json', or add {serializer!r} to {written(app, among)}." if known else "Use 'json'.",
    )


def _type(serializer: str) -> str:
    return str(registry.name_to_type.get(serializer, serializer))


def _types(content: Any) -> set[str]:
    if not isinstance(content, Iterable) or isinstance(content, str):
        return {_type(str(content))}  # E014
    known = [name for name in content if "/" in str(name) or name in registry.name_to_type]
    return set(prepare_accept_content(known) or ())


def pickle(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W044: whoever can write to the broker can run code in workers."""
    settings = settings_of(app)
    for key in ("accept_content", "result_accept_content"):
        if settings.get(key) and not _types(settings.get(key)).isdisjoint(CAN_RUN_CODE):
            where = "broker" if key == "accept_content" else "result backend"
            yield warning(
                "W044",
                f"{written(app, key)} has pickle: whoever can write to the {where} runs code in your processes.",
                'Use ["json"]. To change over: send JSON first, and accept pickle until no such message is left.',
            )


def certificates(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W045: the connection is encrypted, and to whom is not looked at."""
    settings = settings_of(app)
    for key in ("broker_use_ssl", "redis_backend_use_ssl"):
        options = settings.get(key)
        if isinstance(options, Mapping) and any(
            name in options and _is_none(options[name]) for name in ("ssl_cert_reqs", "cert_reqs")
        ):
            yield _unverified(written(app, key))
    for key in ("broker_url", "broker_read_url", "broker_write_url", "result_backend"):
        urls = getattr(settings, key, None)
        for url in [urls] if isinstance(urls, str) else urls if isinstance(urls, (list, tuple)) else ():
            query = parse_qsl(str(url).partition("?")[2])
            if any(name in ("ssl_cert_reqs", "cert_reqs") and _is_none(value) for name, value in query):
                yield _unverified(f"the URL in {written(app, key)}")
                break


def _is_none(value: Any) -> bool:
    return value is ssl.CERT_NONE or (isinstance(value, str) and value.lower().rpartition("_")[2] == "none")


def _unverified(where: str) -> CheckMessage:
    return warning(
        "W045",
        f"CERT_NONE in {where}: the connection is encrypted, and anybody may be at its other end.",
        "Use CERT_REQUIRED, with ssl_ca_certs (ca_certs for RabbitMQ) if the certificate is your own authority's.",
    )
