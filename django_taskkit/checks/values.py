"""Values of the wrong type, such as the text that an environment variable is."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from celery import Celery
from celery.app import defaults
from celery.app.routes import prepare
from django.core.checks import CheckMessage
from kombu import Queue

from django_taskkit.checks.configuration import settings_of, written
from django_taskkit.checks.registration import error

_OPTIONS: Mapping[str, Any] = dict(defaults.flatten(defaults.NAMESPACES))

TEXT_WILL_DO = frozenset({"broker_port", "redis_port", "redis_db"})
"""Numbers that Celery, kombu or redis-py makes of a text by themselves."""

DICT_TOO = frozenset({"broker_use_ssl"})
"""Yes or no in Celery's table, and options as well."""

TIMEDELTA_TOO = frozenset({"result_expires", "result_chord_expires", "result_failure_expires"})

NEVER_NONE = frozenset({"broker_transport_options"})
"""Settings for which Celery takes None for a value, and fails with it."""

LIST_TOO = frozenset({"task_queues"})
"""Dicts in Celery's table that may be lists: of queues, by name."""


def kinds(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.E013: a text where yes or no is asked for; E014: a value of another wrong type."""
    conf = settings_of(app)
    for key, option in sorted(_OPTIONS.items()):
        value = conf.get(key)
        if value is option.default or (value is None and key not in NEVER_NONE):
            continue
        if option.type == "bool":
            yield from _of_yes_or_no(app, key, value)
        elif (wanted := _wanted(key, option.type)) and not wanted[0](value):
            yield error(
                "E014",
                f"{written(app, key)} is {_shown(value)}: {wanted[1]} is asked for.",
                f"Give {wanted[2]}.",
            )


def _of_yes_or_no(app: Celery, key: str, value: Any) -> Iterator[CheckMessage]:
    if isinstance(value, str):
        yield error(
            "E013",
            f"{written(app, key)} is the text {value!r}, which counts as {bool(value)}, as any text but the empty one.",
            "Give True or False; of an environment variable make one: os.environ.get(...) == '1'.",
        )
    elif not (isinstance(value, (bool, int)) or (key in DICT_TOO and isinstance(value, Mapping))):
        yield error("E014", f"{written(app, key)} is {_shown(value)}: True or False is asked for.", "Give one of them.")


def _wanted(key: str, kind: Any) -> tuple[Callable[[Any], bool], str, str] | None:
    if key in TEXT_WILL_DO:
        return None
    if key in ("broker_url", "broker_read_url", "broker_write_url"):
        return _is_text_or_more, "a URL", "one, or a list of them"
    if key == "task_default_queue":
        return _is_text, "the name of a queue", "one, such as 'default'"
    if key == "task_routes":
        return _is_routes, "a dict of routes, or a list of them", 'one: {"reports.*": {"queue": "reports"}}'
    if kind in ("int", "float", int):
        if key in TIMEDELTA_TOO:
            return _is_duration, "a number of seconds or a timedelta", "one, such as 3600 or timedelta(hours=1)"
        return _is_number, "a number", "a number without quotes; of an environment variable make one: int(...)"
    if kind == "dict":
        if key in LIST_TOO:
            return _is_queues, "a list of queues", 'a list: [Queue("default")]'
        return _is_mapping, "a dict", "a dict: {...}; of an environment variable make one: json.loads(...)"
    if key in ("accept_content", "result_accept_content"):
        return _is_collection, "a list", 'a list: ["json"]'
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_or_more(value: Any) -> bool:
    return _is_text(value) or (isinstance(value, (list, tuple)) and all(map(_is_text, value)))


def _is_queues(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(queue, (Mapping, Queue)) for queue in value.values())
    return _is_collection(value) and all(isinstance(queue, Queue) for queue in value)


def _is_routes(value: Any) -> bool:
    try:
        routers = prepare(value)
    except Exception:  # Celery takes it apart without a look: pairs that are none, and so on
        return False
    return all(callable(router) or hasattr(router, "route_for_task") for router in routers)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real)


def _is_duration(value: Any) -> bool:
    return isinstance(value, (numbers.Real, timedelta))


def _is_mapping(value: Any) -> bool:
    # Some are objects that behave like one.
    return isinstance(value, Mapping) or hasattr(value, "keys")


def _is_collection(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes))


def _shown(value: Any) -> str:
    """Return the value's type, and the value where it can't be a secret: a number's text, or a short plain one."""
    if isinstance(value, str) and value.strip("+-. ").replace(".", "").isdigit():
        return f"the text {value!r}"
    return f"a {type(value).__name__}" if not isinstance(value, (bool, int, float, timedelta)) else repr(value)
