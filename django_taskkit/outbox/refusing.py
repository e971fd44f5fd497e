"""Refuse a call whose arguments should not travel, before anything of it is sent.

It has to happen before Celery makes the message: that describes the arguments by their ``repr``, which runs a queryset
and fetches a lazy object.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

from celery import Celery, Task

from django_taskkit import conf
from django_taskkit.arguments import may_be_unsafe, unsafe
from django_taskkit.exceptions import ConfigurationError, UnsafeArgumentError
from django_taskkit.running import running_under

logger = logging.getLogger("django_taskkit")

Call = tuple[str, Any, Any, Mapping[str, Any]]
"""Name of a task, positional and named arguments, options."""

FOLLOWING = ("link", "link_error", "chord", "chain")
"""Options that hold signatures; they travel in the message of what comes before them."""

_PARTS = {"chain": ("tasks",), "group": ("tasks",), "chord": ("header", "body")}
_WITHOUT_CALLER = frozenset({"on_chord_part_return", "unlock_chord", "_call_task_errbacks"})
"""Functions of Celery and of result backends, which others override."""

_SWALLOWING = frozenset({("celery.app.trace", "on_error"), ("celery.utils.dispatch.signal", "send")})
"""Functions of Celery that log an error of what they call, and go on; their names alone would mean nothing."""


def check_call(app: Celery, name: str, args: Any, kwargs: Any, options: Mapping[str, Any]) -> None:
    """Look at a call that is about to become a message, and at what follows it.

    Raises:
        UnsafeArgumentError: something in it should not travel.
    """
    following = [options[key] for key in FOLLOWING if options.get(key)]
    if may_be_unsafe(args, kwargs, *following):
        for sentence, mode in _sentences(app, (name, args, kwargs, options)):
            if mode == "error" and running_under(options.get("task_id")) is None and has_caller():
                raise UnsafeArgumentError(sentence)
            logger.warning("%s (sent by %s)", sentence, _place())


def check_workflow(signature: Any, args: Any, kwargs: Any, options: Mapping[str, Any]) -> None:
    """Look at a chain, group or chord as a whole, so that it isn't sent in part; warnings are left to its messages.

    Raises:
        UnsafeArgumentError: something in it should not travel.
    """
    if not may_be_unsafe(signature, args, kwargs):
        return
    is_eager = signature.app.conf.task_always_eager
    calls: list[Call] = [(signature["task"], args or (), kwargs or {}, options)]
    for call in (*calls, *_calls_of([signature], set())):
        if has_own_way(signature.app._tasks.get(call[0])):
            continue  # its message is looked at when it is made
        for sentence, mode in _sentences(signature.app, call, {"serializer": options.get("serializer")}):
            if mode == "error" and has_caller():
                raise UnsafeArgumentError(sentence)
            if is_eager:
                logger.warning("%s (sent by %s)", sentence, _place())


def _sentences(app: Celery, call: Call, outer: Mapping[str, Any] | None = None) -> Iterator[tuple[str, str]]:
    name, _, _, options = call
    serializer = (outer or {}).get("serializer") or _serializer(app, name, options)
    followers = _calls_of([options[key] for key in FOLLOWING if options.get(key)], set())
    for task_name, positional, named, _ in (call, *followers):
        task = app._tasks.get(task_name)  # type: ignore[attr-defined]  # ``app.tasks`` would finalize the app
        mode = _mode(task)
        if mode == "allow":
            continue
        found = unsafe(positional or (), named or {}, serializer, _parameters(task))
        if found is not None:
            of = "" if task_name == name else f", which follows {name}"
            yield f"task {task_name}{of}: {found.where} is {found.what}; {found.remedy}.", mode


def _calls_of(signatures: Iterable[Any], seen: set[int]) -> Iterator[Call]:
    """The calls that signatures stand for; as dicts, which is what they are after a journey."""
    for signature in signatures:
        if isinstance(signature, (list, tuple)):
            yield from _calls_of(list.__iter__(signature) if isinstance(signature, list) else signature, seen)
        elif isinstance(signature, dict) and "task" in signature and id(signature) not in seen:
            seen.add(id(signature))
            kwargs, options = signature.get("kwargs") or {}, signature.get("options") or {}
            parts = _PARTS.get(signature.get("subtask_type") or "")
            if parts is None:
                yield (
                    signature["task"],
                    signature.get("args") or (),
                    kwargs,
                    {"serializer": options.get("serializer")},
                )
            else:
                yield from _calls_of([kwargs.get(part) for part in parts], seen)
            yield from _calls_of([options[key] for key in FOLLOWING if options.get(key)], seen)


def _mode(task: Any) -> str:
    mode = getattr(task, "unsafe_arguments", None)
    if mode is None:
        return conf.current().unsafe_arguments
    choices = conf.CHOICES["unsafe_arguments"]
    if mode not in choices:
        raise ConfigurationError(
            f"{task.name}: unsafe_arguments is {mode!r}; give one of {', '.join(map(repr, choices))}"
        )
    return str(mode)


def _serializer(app: Celery, name: str, options: Mapping[str, Any]) -> str:
    task = app._tasks.get(name)  # type: ignore[attr-defined]
    return str(options.get("serializer") or getattr(task, "serializer", None) or app.conf.task_serializer)


def _parameters(task: Any) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(task.run).parameters.values()
    except (AttributeError, TypeError, ValueError):  # not registered here, or no signature to be had
        return ()
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameter.name for parameter in parameters if parameter.kind in named)


def has_own_way(task: Any) -> bool:
    """Say whether the project has its own ``apply_async`` for a task, which may make keys of what it is called with."""
    return task is not None and type(task).apply_async is not Task.apply_async


def has_caller() -> bool:
    """Say whether an error would reach whoever made the call, rather than Celery's own machinery.

    When a task is over, its worker sends what follows it; an error there would be nobody's, and what follows would be
    lost. Beat, and the signals of Celery, log an error and go on. Told by the stack, since it is asked only when
    something was found.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code, module = frame.f_code, frame.f_globals.get("__name__", "")
        if code.co_name in _WITHOUT_CALLER or (module, code.co_name) in _SWALLOWING or module == "celery.beat":
            return False
        if code.co_name == "trace_task" and "state" in code.co_varnames:
            return frame.f_locals.get("state") is None  # it is set once the body is over
        frame = frame.f_back
    return True


def _place() -> str:
    """File and line of the call, as far as it is neither Celery's nor ours."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in ("celery", "kombu", "django_taskkit", "vine"):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return "Celery itself"
