"""``ResultCache`` as a decorator of the task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery.local import Proxy

from django_taskkit.results.cache import ResultCache

if TYPE_CHECKING:
    Base = Proxy[Any]
else:
    Base = Proxy


class CachedTask(Base):
    # The task itself, with its cache as ``cached``. No docstring, which would be shown in the place of the task's own.
    __slots__ = ("_taskkit_cached",)
    __doc__ = property(lambda self: self._get_current_object().__doc__)

    def __init__(self, task: Any, cached: ResultCache) -> None:
        super().__init__(lambda: task)
        object.__setattr__(self, "_taskkit_cached", cached)

    @property
    def cached(self) -> ResultCache:
        cached: ResultCache = object.__getattribute__(self, "_taskkit_cached")
        return cached


def result_cache(**options: Any) -> Callable[[Any], Any]:
    """Return a decorator that gives a task a :class:`ResultCache`, with these options, as its ``cached``::

        @result_cache(timeout=3600, stale_for=600)
        @shared_task
        def build_report(user_id, month): ...

        state = build_report.cached.get_or_dispatch(user_id=7, month="2026-11")

    All else is as before: ``build_report.delay(…)`` sends the task and caches nothing.
    """

    def decorate(task: Any) -> Any:
        return CachedTask(task, ResultCache(task, **options))

    return decorate
