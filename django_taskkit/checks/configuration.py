"""What a project has written in Celery's settings, and under which names.

A setting has up to four names: ``task_acks_late`` is ``CELERY_TASK_ACKS_LATE`` in Django's settings with the namespace
``CELERY``, ``CELERY_ACKS_LATE`` was its name before Celery 4, and some versions still read that one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from celery import Celery
from celery.app import defaults

EXTRA_KEYS = frozenset(
    {
        "cassandra_secure_bundle_path",
        "dynamodb_endpoint_url",
        "firestore_project",
        "gcs_threadpool_maxsize",
        "override_backends",
        "redis_backend_credential_provider",
        "redis_backend_health_check_interval",
        "redis_client_name",
        "result_backend_thread_safe",
    }
)
"""Settings that Celery's code reads and its table of settings, ``celery.app.defaults``, does not have."""

OLD_NAMES: Mapping[str, str] = defaults._TO_NEW_KEY  # type: ignore[attr-defined]
"""Names of before Celery 4, to those of today; and each name of today in capitals."""

DRIVERS = {
    "redis": "redis",
    "rediss": "redis",
    "sentinel": "redis",
    "valkey": "redis",
    "amqp": "amqp",
    "amqps": "amqp",
    "pyamqp": "amqp",
    "sqs": "sqs",
}
"""What speaks to the broker, by the beginning of its URL, for a transport whose library is not installed here."""


def settings_of(app: Celery) -> Any:
    """Return Celery's settings as they are read, and not the stand-in that waits for the first reading.

    Raises:
        Exception: whatever the project's configuration raises when it is imported or put together.
    """
    conf: Any = app.conf
    conf.get("broker_url")
    return getattr(app, "_conf", None) or conf


def known_keys() -> set[str]:
    """Return the names of all settings, as Celery's documentation has them."""
    return set(defaults.SETTING_KEYS) | EXTRA_KEYS


def readable(app: Celery) -> dict[str, str]:
    """Return each name under which this app reads a setting, and the setting's own name."""
    conf = settings_of(app)
    names = {name: key for key in known_keys() for name in conf._to_keys(key)}
    if not conf.prefix:  # with one, Celery 5.5 and 5.6 don't read the old names; 5.7 gives them above
        names |= OLD_NAMES
    return names


def written(app: Celery, key: str) -> str:
    """Return the name under which the project gives ``key``, or would: what to look for in its settings."""
    conf = settings_of(app)
    old = [name for name, new in OLD_NAMES.items() if new == key]
    for name in (*conf._to_keys(key), *old):
        if any(name in names for names, _is_code in given(app)):
            return str(name)
    return str(conf._to_keys(key)[0])


def given(app: Celery) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield what each source of the configuration gives by name, and whether it is code, which has other names too."""
    conf = settings_of(app)
    changes, *sources = conf.maps[:-1]  # the last are Celery's defaults
    yield {name: value for name, value in changes.items() if name != "deprecated_settings"}, False
    for source in sources:
        obj = getattr(source, "obj", None)
        if obj is None:
            yield dict(source), False
        else:
            yield _attributes(obj), True


def _attributes(obj: Any) -> dict[str, Any]:
    found = {}
    for name in dir(obj):
        if name.startswith("_"):
            continue
        try:
            value = getattr(obj, name)
        except Exception:  # noqa: S112 (a property; nothing that Celery would get either)
            continue
        if not isinstance(value, (ModuleType, type)):
            found[name] = value
    return found


def driver(app: Celery, *, reading: bool = True) -> str:
    """Return what speaks to the broker: ``redis``, ``amqp``, ``sqs``, ``filesystem``, ``memory`` and so on."""
    try:
        connection: Any = app.connection_for_read() if reading else app.connection_for_write()
        return str(connection.get_transport_cls().driver_type)
    except Exception:  # E005 says why
        settings = settings_of(app)
        url = settings.broker_read_url if reading else settings.broker_write_url
        scheme = str(url[0] if isinstance(url, (list, tuple)) and url else url).partition(":")[0].partition("+")[0]
        return DRIVERS.get(scheme, scheme)


def number(value: Any) -> float | None:
    """Return ``value`` if it is a number, seconds of a timedelta, else None: what is wrong with it is E014's to say."""
    if isinstance(value, bool):
        return None
    if hasattr(value, "total_seconds"):
        return float(value.total_seconds())
    return float(value) if isinstance(value, (int, float)) else None


def own_tasks(app: Celery) -> list[tuple[str, Any]]:
    """Return the project's tasks by name, without those of Celery and of this package."""
    return [(name, task) for name, task in sorted(app.tasks.items()) if not name.startswith(("celery.", "taskkit."))]


def named(names: list[str], most: int = 3) -> str:
    """Return ``names`` for a sentence: the first, and how many more there are."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"
