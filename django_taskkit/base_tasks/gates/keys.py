"""From the arguments of a call to the key that it shares with its duplicates."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django_taskkit.base_tasks.verdicts import Permanent
from django_taskkit.call_keys import Binding, key_text
from django_taskkit.exceptions import ConfigurationError

KIND = "once"
"""What such keys have after the package's name."""


@dataclass(frozen=True)
class CallKey:
    """Makes the key of a call. Built from a task's option by :func:`call_key_of`."""

    task_name: str
    binding: Binding
    """Of the task's body."""
    names: tuple[str, ...] = ()
    """Arguments that make up the key; none: all calls of the task have one key."""
    function: Callable[..., Any] | None = None
    """Says the key instead."""

    def __call__(self, args: tuple[Any, ...], kwargs: Any) -> str | None:
        """Return the key of a call with these arguments; None if it has none.

        Raises:
            Permanent: the key can't be written as JSON, now or ever.
            Exception: whatever the task's own function raises.
        """
        if self.function is not None:
            said = self.function(*args, **kwargs)
            if said is not None and not (isinstance(said, str) and said):
                raise Permanent(
                    f"idempotency_key of {self.task_name} returned {said!r:.50}; return a text, or None for a call "
                    f"without a key"
                )
            return None if said is None else key_text(KIND, self.task_name, said)
        try:
            values = self.binding(args, kwargs)
        except TypeError:
            return None  # the call doesn't fit, and its run ends with that error
        chosen = {name: values.get(name) for name in self.names}
        try:
            return key_text(KIND, self.task_name, chosen)
        except (TypeError, ValueError, RecursionError) as exc:
            raise Permanent(
                f"idempotency_key of {self.task_name}: {', '.join(chosen)} can't be written as JSON ({exc}); "
                f"name other arguments, or give a function that returns a text"
            ) from exc


def call_key_of(task: Any) -> CallKey:
    """Read ``idempotency_key`` of a task.

    Raises:
        ConfigurationError: it makes no sense.
    """
    option = inspect.getattr_static(task, "idempotency_key", None)
    names = (option,) if isinstance(option, str) else option
    signature = inspect.signature(task.run)
    if isinstance(names, (tuple, list)) and all(isinstance(name, str) for name in names):
        _check_names(task.name, names, signature)
        return CallKey(task.name, Binding(signature), names=tuple(names))
    function = _function(task, option)
    if not callable(function):
        raise ConfigurationError(
            f"{task.name}: idempotency_key: {option!r} makes no sense; give names of arguments, for example "
            f"('order_id',), or a function that takes the task's arguments and returns a text"
        )
    return CallKey(task.name, Binding(signature), function=function)


def _function(task: Any, option: Any) -> Any:
    """Return the function without the task before its arguments, unless it is a method that a class defines."""
    if isinstance(option, (staticmethod, classmethod, property)):
        return task.idempotency_key
    for cls in type(task).__mro__:
        if vars(cls).get("idempotency_key") is option:
            is_method = getattr(option, "__qualname__", "") == f"{cls.__qualname__}.idempotency_key"
            return task.idempotency_key if is_method else option
    return option


def _check_names(task_name: str, names: Sequence[str], signature: inspect.Signature) -> None:
    parameters = signature.parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in names:
        if name not in parameters:
            known = ", ".join(map(repr, parameters)) or "none"
            raise ConfigurationError(
                f"{task_name}: idempotency_key: the task has no argument {name!r}; its arguments are {known}"
            )
