"""What budgets and breakers have in common: the name of a dependency, the gate of a task that names it, numbers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from django_taskkit.base_tasks.gates import Gate
from django_taskkit.base_tasks.verdicts import seconds_of
from django_taskkit.exceptions import ConfigurationError

LONGEST_NAME = 100


class Named(Protocol):
    """A class whose objects are made of a dependency's name."""

    def __init__(self, name: str) -> None: ...


T = TypeVar("T", bound=Named)


def named_by(task: Any, option: str, kind: type[T]) -> T | None:
    """Return what ``task`` names by its ``option``, in full or by the dependency's name alone; None if it has none.

    Raises:
        ConfigurationError: the option is neither a name nor a ``kind``.
    """
    value = getattr(task, option, None)
    if value is None or isinstance(value, kind):
        return value
    if isinstance(value, str):
        try:
            return kind(value)
        except ConfigurationError as exc:
            raise ConfigurationError(f"task {task.name}: {option} is {value!r}; {exc}") from None
    raise ConfigurationError(
        f"task {task.name}: {option} is {value!r}; give the name of the dependency, or a {kind.__name__}"
    )


def gate_named_by(task: Any, option: str, kind: type[Named], gate: Callable[[Any], Gate]) -> Gate | None:
    """Return what stands before the body of ``task`` for what it names by its ``option``; None if it has none.

    Args:
        gate: makes a gate of the option's value, once for equal ones.

    Raises:
        ConfigurationError: the option is neither a name nor a ``kind``.
    """
    value = getattr(task, option, None)
    if value is None:
        return None
    try:
        return gate(value)
    except (TypeError, ConfigurationError):  # a TypeError: it can't even be looked up
        named_by(task, option, kind)  # says what is wrong, and where
        raise


def check_name(what: str, name: object) -> None:
    """Raise ConfigurationError unless ``name`` may be that of a dependency."""
    if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"{what}({name!r}) has no name; give that of the dependency, at most {LONGEST_NAME} characters: 'stripe'"
        )


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def seconds(what: str, option: str, value: float | timedelta) -> float:
    """Return a time as seconds.

    Raises:
        ConfigurationError: it is no time above 0.
    """
    try:
        found = seconds_of(value)
    except ValueError:
        found = 0.0
    if found <= 0:
        raise ConfigurationError(f"{what}({option}={value!r}) makes no sense; give seconds above 0, or a timedelta")
    return found
