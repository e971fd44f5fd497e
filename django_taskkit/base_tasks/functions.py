"""Options that are functions: given in a decorator they are no methods, given in a class they are."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any

FUNCTIONS = {"retry_in": 2, "on_retries_exhausted": 2, "uniform": 2}
"""Their names, and how many arguments they are called with."""


def problem(task: Any, name: str) -> str | None:
    """Return what is wrong with an option that is to be a function, in a sentence; None if nothing is."""
    function = getattr(task, name)
    if not callable(function):
        return f"{name}: {function!r} makes no sense; give a function of {FUNCTIONS[name]} arguments"
    try:
        inspect.signature(function).bind(*[None] * FUNCTIONS[name])
    except TypeError:
        return f"{name}: {function!r} has to take {FUNCTIONS[name]} arguments"
    except ValueError:  # no signature to be had
        return None
    return None


def unbind(cls: type, name: str) -> None:
    """Keep Python from handing the task to a function that has no place for it.

    ``@shared_task(retry_in=lambda exc, attempt: ...)`` becomes an attribute of a class, as a method does.
    """
    function = vars(cls).get(name)
    if not isinstance(function, FunctionType):
        return
    try:
        inspect.signature(function).bind(*[None] * (FUNCTIONS[name] + 1))
    except TypeError:
        setattr(cls, name, staticmethod(function))
