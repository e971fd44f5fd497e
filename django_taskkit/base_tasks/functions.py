"""Options that are functions: given in a decorator they are no methods, given in a class they are."""

from __future__ import annotations

import inspect
from types import FunctionType

FUNCTIONS = {"retry_in": 2, "on_retries_exhausted": 2, "uniform": 2}
"""Their names, and how many arguments they are called with."""


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
