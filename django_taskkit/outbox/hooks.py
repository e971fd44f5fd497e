"""Put the outbox in place, for every Celery app of the process."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from celery.app.task import Task
from celery.canvas import _chain, chord, group
from celery.contrib.django.task import DjangoTask
from django.db import DEFAULT_DB_ALIAS, connections, router
from kombu.transport.pyamqp import Transport as AmqpTransport

from django_taskkit.dlq.publisher import ANSWER_TIMEOUT
from django_taskkit.outbox.model import OutboxMessage
from django_taskkit.outbox.publishing import choice_for, with_outbox
from django_taskkit.outbox.refusing import check_call, check_workflow, has_own_way
from django_taskkit.outbox.result_backends import bear_outage


def install() -> None:
    """Hook into Celery; doing it twice changes nothing."""
    from django_taskkit.outbox import tasks  # noqa: F401  (its task is there without autodiscovery)

    _wrap(Celery, "send_task", _send_task)
    _wrap(Task, "apply_async", _apply_async)
    for workflow in (_chain, group, chord):
        _wrap(workflow, "apply_async", _apply_workflow)
    _wrap(AMQP, "_create_task_sender", _create_task_sender)
    _wrap(Celery, "connection_for_write", _connection_for_write)
    _wrap(Celery, "_get_backend", _get_backend)
    _wrap(DjangoTask, "delay_on_commit", _delay_on_commit)
    _wrap(DjangoTask, "apply_async_on_commit", _apply_async_on_commit)


def _wrap(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    original = getattr(owner, name)
    if getattr(original, "has_taskkit_outbox", False):
        return

    @wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return replacement(original, self, *args, **kwargs)

    method.has_taskkit_outbox = True  # type: ignore[attr-defined]
    setattr(owner, name, method)


def _send_task(
    original: Callable[..., Any], app: Any, name: str, args: Any = None, kwargs: Any = None, *more: Any, **options: Any
) -> Any:
    if options.get("task_type") is None:  # else it comes from ``apply_async``
        check_call(app, name, args, kwargs, options)
    return original(app, name, args, kwargs, *more, **options)


def _apply_async(original: Callable[..., Any], task: Any, *args: Any, **options: Any) -> Any:
    check_call(task.app, task.name, *_call(args, options), options)  # here, for eager tasks get no further
    return original(task, *args, **options)


def _apply_workflow(original: Callable[..., Any], signature: Any, *args: Any, **options: Any) -> Any:
    check_workflow(signature, *_call(args, options), options)
    return original(signature, *args, **options)


def _call(args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any]:
    """The task's own arguments in those of ``apply_async``."""
    return (args[0] if args else options.get("args")), (args[1] if len(args) > 1 else options.get("kwargs"))


def _create_task_sender(original: Callable[..., Any], amqp: Any) -> Any:
    return with_outbox(original(amqp), amqp.app)


def _connection_for_write(original: Callable[..., Any], app: Any, *args: Any, **kwargs: Any) -> Any:
    """Have RabbitMQ confirm what it takes, and wait for a silent broker no longer than it may take to answer.

    Without confirms publishing "succeeds" for messages that never arrive. What ``broker_transport_options`` says is
    respected. The connection on which a worker sends its events (the only one asked for with a heartbeat and nothing
    else) is left as it is: they are many, and not worth the wait.
    """
    connection = original(app, *args, **kwargs)
    for_events = not (set(kwargs) - {"heartbeat", "url"}) and "heartbeat" in kwargs
    if not for_events:
        for name, value in _careful_options(connection).items():
            connection.transport_options.setdefault(name, value)
    return connection


def _careful_options(connection: Any) -> dict[str, Any]:
    try:
        transport = connection.get_transport_cls()
    except Exception:  # it can't be imported: whoever connects gets the error
        return {}
    if issubclass(transport, AmqpTransport):
        return {"confirm_publish": True, "write_timeout": ANSWER_TIMEOUT}
    if transport.driver_type == "redis":
        return {"socket_timeout": ANSWER_TIMEOUT, "socket_connect_timeout": ANSWER_TIMEOUT}
    return {}


def _get_backend(original: Callable[..., Any], app: Any) -> Any:
    return bear_outage(original(app))


def _delay_on_commit(original: Callable[..., Any], task: Any, *args: Any, **kwargs: Any) -> None:
    if not has_own_way(task):  # now: at the commit, an error would take other hooks with it
        check_call(task.app, task.name, args, kwargs, {})
    if _is_transactional(task, None):
        task.delay(*args, **kwargs)
    else:
        original(task, *args, **kwargs)


def _apply_async_on_commit(original: Callable[..., Any], task: Any, *args: Any, **kwargs: Any) -> None:
    if not has_own_way(task):
        check_call(task.app, task.name, *_call(args, kwargs), kwargs)
    if _is_transactional(task, kwargs.get("outbox")):
        task.apply_async(*args, **kwargs)
    else:
        original(task, *args, **kwargs)


def _is_transactional(task: Any, option: bool | None) -> bool:
    """Say whether the message can be written in the very transaction that a commit hook would wait for."""
    using = router.db_for_write(OutboxMessage)
    return (
        using == DEFAULT_DB_ALIAS
        and connections[using].in_atomic_block
        and not task.app.conf.task_always_eager
        and choice_for(task.app, task.name, option) == "always"
    )
