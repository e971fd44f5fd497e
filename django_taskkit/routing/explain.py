"""Which rule sends a task where, as Celery's own router has it, and what is wrong with that."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from celery import Celery
from celery.app.routes import MapRoute, Router, prepare
from celery.exceptions import QueueNotFound
from kombu import Queue

from django_taskkit.origin import origin_of
from django_taskkit.routing.brokers import NUMBERS, PLAIN, RABBITMQ
from django_taskkit.routing.lane import declared_lanes
from django_taskkit.routing.queues import by_queue


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where one task goes that is sent without options."""

    task: str
    registered: bool
    """False: this process knows no such task, and only its name was looked at."""

    rule: str
    """What decides, such as ``task_routes['reports.*']`` or ``task_default_queue``."""

    queue: str = ""
    """Empty: it reaches none that the app knows, and ``error`` says why."""

    exchange: str = ""
    """As Celery publishes it: empty for queues on a direct exchange, which it sends to straight."""

    exchange_type: str = ""
    routing_key: str = ""
    priority: int | None = None
    """The number on the message; None: it bears none."""

    priority_name: str = ""
    """What that number means on this broker; empty: nothing with a name."""

    lanes: tuple[str, ...] = ()
    """The lanes whose workers read the queue; several share it."""

    error: str = ""
    """Why it can't be sent; a sentence without its full stop."""


def explain(app: Celery, names: Iterable[str]) -> list[Route]:
    """Return where each of the tasks ``names`` goes, in their order. Nothing is sent, and no queue is made.

    A router of the project's own is called as for a task without arguments.

    Raises:
        ConfigurationError: ``TASKKIT_LANES`` is not what ``lanes()`` returns.
    """
    reader = _Reader(app)
    return [reader.route_of(name) for name in names]


class _Reader:
    def __init__(self, app: Celery) -> None:
        self.app = app
        amqp: Any = app.amqp
        # A copy: where Celery makes missing queues, it makes them when they are looked for.
        routes: Any = prepare(app.conf.task_routes)  # amqp.routes would keep them, whatever the settings become
        self.router: Any = Router(routes, amqp.Queues(dict(amqp.queues)), app.conf.task_create_missing_queues, app=app)
        self.lanes = by_queue(declared_lanes())
        self.names = {number: name for name, number in _numbers(app).items()}
        self.sources = [*_sources(app.conf.task_routes)]

    def route_of(self, name: str) -> Route:
        task = self.app.tasks.get(name)
        asked = _own_options(task)
        rule = _own_rule(asked, "queue", "exchange", "routing_key")
        own_priority = _own_rule(asked, "priority") if has_own_priority(self.app, task) else ""
        registered = task is not None
        try:
            rule = rule or self._rule(name, asked, task)
            options = self.router.route(dict(asked), name, (), {}, task)
        except QueueNotFound as exc:
            return Route(task=name, registered=registered, rule=rule or "task_routes", error=str(exc.args[0]))
        except Exception as exc:
            rule = rule or "a router of the project's"
            error = f"the router fails for a task without arguments: {type(exc).__name__}: {exc}"
            return Route(task=name, registered=registered, rule=rule, error=error)
        exchange, kind, key, queue = self._destination(options)
        priority = options.get("priority")
        return Route(
            task=name,
            registered=registered,
            rule=", ".join(filter(None, (rule or "task_default_queue", own_priority))),
            queue=queue,
            exchange=exchange,
            exchange_type=kind,
            routing_key=key,
            priority=priority,
            priority_name=self.names.get(priority, "") if isinstance(priority, int) else "",
            lanes=tuple(self.lanes.get(queue, ())),
            error="" if queue else f"no queue that the app knows is bound to {exchange!r} with {key!r}",
        )

    def _rule(self, name: str, asked: Mapping[str, Any], task: Any) -> str:
        """Return what decides in ``task_routes``; empty if nothing does."""
        several = len(self.router.routes) > 1
        for number, router in enumerate(self.router.routes):
            found = self.router.query_router(router, name, (), {}, dict(asked), task)
            if found is None:
                continue
            if not found:
                return ""  # Celery asks no further, and takes the default queue
            where = f"task_routes[{number}]" if several else "task_routes"
            if isinstance(router, MapRoute):
                return f"{where}[{_key(router, name, self.sources)}]"
            return f"{where}: {_name_of(router)}"
        return ""

    def _destination(self, options: Mapping[str, Any]) -> tuple[str, str, str, str]:
        """Return exchange, its type, routing key and queue, as ``AMQP.send_task_message`` works them out."""
        conf: Any = self.app.conf
        queue = options.get("queue")
        exchange, key = options.get("exchange"), options.get("routing_key")
        exchange = getattr(exchange, "name", exchange)
        if not isinstance(queue, Queue):
            found = origin_of(self.app, {"exchange": exchange, "routing_key": key or conf.task_default_routing_key})
            kind = options.get("exchange_type") or "direct"
            return str(exchange or ""), str(kind), str(key or ""), found[2]
        kind = queue.exchange.type if queue.exchange else "direct"
        if (not exchange or not key) and kind == "direct":
            return "", kind, queue.name, queue.name
        if exchange is None:
            exchange = queue.exchange.name or conf.task_default_exchange
        return str(exchange), kind, str(key or queue.routing_key or conf.task_default_routing_key), queue.name


def _numbers(app: Celery) -> Mapping[str, int]:
    """Return the broker's number for each priority's name; none where its client is not installed here."""
    try:
        driver = app.connection_for_write().get_transport_cls().driver_type
    except Exception:  # taskkit.E005 says why
        return {}
    return NUMBERS[{"amqp": RABBITMQ}.get(driver, driver if driver in NUMBERS else PLAIN)]


def _own_options(task: Any) -> dict[str, Any]:
    """Return the options that Celery takes from the task itself, which win over all rules."""
    if task is None:
        return {}
    options: Mapping[str, Any] = task._get_exec_options()
    return {name: value for name, value in options.items() if value is not None and not name.endswith("time_limit")}


def has_own_priority(app: Celery, task: Any) -> bool:
    """Say whether the task itself has a priority; one without has that of ``task_default_priority``."""
    priority = getattr(task, "priority", None)
    return priority is not None and priority != app.conf.task_default_priority


def _own_rule(asked: Mapping[str, Any], *names: str) -> str:
    named = [f"{name}={asked[name]!r}" for name in names if asked.get(name) not in (None, "")]
    return f"the task's own {', '.join(named)}" if named else ""


def _sources(routes: Any) -> Iterator[str]:
    """Yield the patterns as they are written in the settings; Celery keeps regular expressions made of them."""
    for router in routes if isinstance(routes, (list, tuple)) else [routes]:
        entries: Any = router if isinstance(router, (Mapping, list, tuple)) else ()
        yield from (key for key in entries if isinstance(key, str))
        yield from (entry[0] for entry in entries if isinstance(entry, (list, tuple)) and isinstance(entry[0], str))


def _key(router: Any, name: str, sources: Iterable[str]) -> str:
    if name in router.map:
        return repr(name)
    for pattern in router.patterns:
        if pattern.match(name):
            written = (source for source in sources if "*" in source)
            return next(
                (repr(source) for source in written if re.compile(fnmatch.translate(source)) == pattern),
                f"re.compile({pattern.pattern!r})",
            )
    return repr(name)


def _name_of(router: Any) -> str:
    router = getattr(router, "evaluate", lambda: router)()  # a path of a function, which Celery imports when needed
    named = router if hasattr(router, "__qualname__") else type(router)
    return f"{named.__module__}.{named.__qualname__}"


def known_queues(app: Celery) -> set[str]:
    """Return the queues that somebody is meant to read: those of the lanes, else of ``task_queues``; empty: any.

    Raises:
        ConfigurationError: ``TASKKIT_LANES`` is not what ``lanes()`` returns.
    """
    if lanes := by_queue(declared_lanes()):
        return set(lanes)
    queues: Any = app.conf.task_queues or ()
    return {getattr(queue, "name", queue) for queue in queues}


def own_tasks(app: Celery) -> list[str]:
    """Return the names of the project's tasks, without those of Celery and of this package."""
    return sorted(name for name in app.tasks if not name.startswith(("celery.", "taskkit.")))
