"""What Celery's pools report of a run that failed: the exception, and the traceback of the process that ran it."""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback  # type: ignore[attr-defined,unused-ignore]


def exception_of(exc_info: Any) -> BaseException:
    exc = exc_info.exception
    while isinstance(exc, ExceptionWithTraceback):
        exc = exc.exc
    return exc  # type: ignore[no-any-return]


def traceback_of(exc_info: Any) -> str:
    return str(getattr(exc_info, "traceback", "") or "")


def raised(exc: Exception, instead_of: Any = None) -> Any:
    """Return what Celery passes about as a raised ``exc``, with the traceback of what it stands for."""
    try:
        raise exc  # noqa: TRY301 (Celery reads the traceback of what is being handled)
    except Exception:
        exc_info = ExceptionInfo()
    if instead_of is not None:
        exc_info.traceback = traceback_of(instead_of)
    return exc_info
