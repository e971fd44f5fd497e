"""Calls that can't ever succeed, told from errors of the task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any


def is_call_error(
    run: Callable[..., Any], exc: BaseException, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> bool:
    """Say whether ``exc`` means that the task can't be called with these arguments, now or ever.

    The arguments don't fit its signature, or are not what its models ask for (``pydantic=True``), and the error came up
    before a line of it ran: a decorator may well add arguments that the call lacks.
    """
    if type(exc).__name__ == "ValidationError" and type(exc).__module__.startswith("pydantic"):
        return not _was_entered(run, exc.__traceback__)
    if not isinstance(exc, TypeError):
        return False
    try:
        inspect.signature(run).bind(*args, **kwargs)
    except TypeError:
        return not _was_entered(run, exc.__traceback__)
    except ValueError:  # no signature to be had
        return False
    return False


def _was_entered(run: Callable[..., Any], tb: TracebackType | None) -> bool:
    code = getattr(inspect.unwrap(run), "__code__", None)
    while tb is not None:
        if tb.tb_frame.f_code is code:
            return True
        tb = tb.tb_next
    return False
