"""The results of a task as a page needs them: from the cache, or on their way."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.core.cache.backends.memcached import BaseMemcachedCache

from django_taskkit.call_keys import LONGEST
from django_taskkit.exceptions import ConfigurationError, StoreError
from django_taskkit.results.calls import Call, Calls
from django_taskkit.results.dispatch import RAISED, Dispatcher
from django_taskkit.results.options import check_options
from django_taskkit.results.reading import hit, look
from django_taskkit.results.records import GRACE, cut_off
from django_taskkit.results.state import TaskState
from django_taskkit.results.tags import ainvalidate_tag, invalidate_tag
from django_taskkit.stores import update
from django_taskkit.stores.place import cache_at

_declared: weakref.WeakSet[ResultCache] = weakref.WeakSet()

MEMCACHED_KEY = 250
"""Bytes of a key that Memcached takes."""

SHORTEST_LOOK, LONGEST_LOOK = 0.02, 0.5
"""Seconds between two looks of whoever waits."""


class ResultCache:
    """What a task returns, cached, and made once for all who ask for it at the same time::

        monthly = ResultCache(build_report, timeout=3600, stale_for=600)
        state = monthly.get_or_dispatch(user_id=7, month="2026-11")
        if state.has_value:
            ...

    The worker puts the value into the cache, so that no result backend is needed, and nothing is held meanwhile.

    Args:
        task: the Celery task. It has to give the same for the same arguments, as long as nothing changes.
        timeout: seconds, or a timedelta, for which a value is fresh; None: for ever.
        stale_for: seconds, or a timedelta, after that for which it is shown while a new one is made.
        lock_timeout: seconds, or a timedelta, that the message may wait for a worker (in its queue, or late for its
            retry) before it counts as lost and is sent again. A run that goes on doesn't, however long it takes.
        error_timeout: seconds, or a timedelta, after a failure in which the task is not sent again; None: until an
            operator requeues its dead letter, or somebody calls :meth:`invalidate` or :meth:`refresh`.
        lease: seconds, or a timedelta, after which a run counts as lost whose worker is not heard of. A process that
            lets none of its other threads run for longer than that, in one call of C code say, is not heard of.
        vary_on: names of the arguments that make a difference; None: all of them.
        version: a number or a word; change it when the task returns something else than it did.
        tags: texts with names of arguments in braces (``"user:{user_id}"``), or a function of the arguments that
            returns texts, by which :meth:`invalidate_tag` finds the values; of the arguments that make a difference.
        cache: alias of the cache. It must be one that web and workers share: Redis, Memcached or the database.
        when_refused: ``"refuse"``: what can't be sent is REFUSED; ``"inline"``: it is run here and now.
        options: for ``apply_async``: ``queue``, ``priority`` and so on.
        poll_every: whole seconds after which it is worth asking again.

    Raises:
        ConfigurationError: an option makes no sense. What can be told only from the task is said when it is first used,
            and by ``manage.py check``.
    """

    def __init__(
        self,
        task: Any,
        *,
        timeout: float | timedelta | None = 300,
        stale_for: float | timedelta = 0,
        lock_timeout: float | timedelta = 900,
        error_timeout: float | timedelta | None = 60,
        lease: float | timedelta = 60,
        vary_on: Iterable[str] | None = None,
        version: int | str = 1,
        tags: Iterable[str] | Callable[..., Iterable[str]] = (),
        cache: str = "default",
        when_refused: str = "refuse",
        options: Mapping[str, Any] | None = None,
        poll_every: int = 2,
    ) -> None:
        self.options = check_options(
            task,
            timeout=timeout,
            stale_for=stale_for,
            lock_timeout=lock_timeout,
            error_timeout=error_timeout,
            lease=lease,
            vary_on=vary_on,
            version=version,
            tags=tags,
            cache=cache,
            when_refused=when_refused,
            send_with=options,
            poll_every=poll_every,
        )
        self.task = task
        self.alias = cache
        self._timeout = self.options.timeout
        self._calls = Calls(task, self.options)
        self._dispatcher = Dispatcher(task, self.options, self._calls)
        _declared.add(self)

    def __repr__(self) -> str:
        return f"<ResultCache of {self.task_name} in {self.alias!r}>"

    @property
    def task_name(self) -> str:
        return str(self.task.name)

    # -- asking

    def get_or_dispatch(self, /, *args: Any, **kwargs: Any) -> TaskState:
        """Return the value of this call, or how it stands; send the task if nobody has.

        Any number of processes may ask at once: one of them sends. What the task, the broker or the cache do is in the
        state.

        Raises:
            TypeError, ValueError: the arguments don't fit the task, or can't be sent.
            ConfigurationError: the options don't fit the task, or the cache can't be used for this.
        """
        return self._ask(self._calls(args, kwargs), anew=False)

    def peek(self, /, *args: Any, **kwargs: Any) -> TaskState:
        """As :meth:`get_or_dispatch`, and send nothing; a fresh value is STALE while a :meth:`refresh` goes on."""
        call = self._calls(args, kwargs)
        try:
            return self._dispatcher.state(call, look(self.alias, call.key, call.tags))
        except (*RAISED, ConfigurationError):
            raise
        except Exception as exc:
            return self._dispatcher.refused(exc, None)

    def refresh(self, /, *args: Any, **kwargs: Any) -> TaskState:
        """Send the task even if there is a fresh value, or it failed a moment ago; join what is on its way.

        The state that is returned is STALE if there is a value, and so is that of :meth:`peek` meanwhile. To
        :meth:`get_or_dispatch`, which looks no further, a fresh value is a HIT.
        """
        return self._ask(self._calls(args, kwargs), anew=True)

    def wait(self, seconds: float, /, *args: Any, **kwargs: Any) -> TaskState:
        """As :meth:`get_or_dispatch`, and look again until there is a value or a failure, for so many seconds at most.

        In a view this keeps a worker of the web server busy; a page that polls doesn't.
        """
        deadline, pause = time.monotonic() + seconds, SHORTEST_LOOK
        while True:
            state = self.get_or_dispatch(*args, **kwargs)
            left = deadline - time.monotonic()
            if not state.is_waiting or left <= 0:
                return state
            time.sleep(min(pause, left))
            pause = min(LONGEST_LOOK, pause * 1.5)

    # -- changing

    def invalidate(self, /, *args: Any, **kwargs: Any) -> None:
        """Forget the value of this call, and what is being made of older data.

        Inside a transaction, call it when the new data are there for all to see:
        ``transaction.on_commit(partial(monthly.invalidate, user_id=7, month="2026-11"))``.

        Raises:
            StoreError: the cache is out of reach, and the value is as it was.
        """
        call = self._calls(args, kwargs)
        # First who makes it, then the value: what is made between the two is new.
        update(self._dispatcher.store, call.run_key, cut_off, ttl=self.options.lock_timeout + GRACE)
        try:
            cache_at(self.alias).delete(call.key)
        except RAISED:
            raise
        except Exception as exc:
            raise StoreError(f"{call.key} can't be invalidated in the cache {self.alias!r}: {exc}") from exc

    def invalidate_tag(self, tag: str) -> None:
        """Forget all values of this cache that have ``tag``, of other tasks too, and what is being made of them."""
        invalidate_tag(tag, cache=self.alias)

    # -- the same for async code

    async def aget_or_dispatch(self, /, *args: Any, **kwargs: Any) -> TaskState:
        """As :meth:`get_or_dispatch`."""
        return await sync_to_async(self.get_or_dispatch)(*args, **kwargs)

    async def apeek(self, /, *args: Any, **kwargs: Any) -> TaskState:
        """As :meth:`peek`."""
        return await sync_to_async(self.peek)(*args, **kwargs)

    async def arefresh(self, /, *args: Any, **kwargs: Any) -> TaskState:
        """As :meth:`refresh`."""
        return await sync_to_async(self.refresh)(*args, **kwargs)

    async def await_(self, seconds: float, /, *args: Any, **kwargs: Any) -> TaskState:
        """As :meth:`wait`; keeps nobody else waiting."""
        deadline, pause = time.monotonic() + seconds, SHORTEST_LOOK
        while True:
            state = await self.aget_or_dispatch(*args, **kwargs)
            left = deadline - time.monotonic()
            if not state.is_waiting or left <= 0:
                return state
            await asyncio.sleep(min(pause, left))
            pause = min(LONGEST_LOOK, pause * 1.5)

    async def ainvalidate(self, /, *args: Any, **kwargs: Any) -> None:
        """As :meth:`invalidate`."""
        await sync_to_async(self.invalidate)(*args, **kwargs)

    async def ainvalidate_tag(self, tag: str) -> None:
        """As :meth:`invalidate_tag`."""
        await ainvalidate_tag(tag, cache=self.alias)

    # -- how it is done

    def key(self, /, *args: Any, **kwargs: Any) -> str:
        """Return the key of this call's value in the cache.

        Raises:
            TypeError, ValueError: the arguments don't fit the task, or can't be written as JSON.
        """
        return self._calls(args, kwargs).key

    def check(self) -> None:
        """Look at task and cache.

        Raises:
            ConfigurationError: the options don't fit the task, or the cache can't be used for this.
        """
        self._calls.check()
        _ = self._dispatcher.store
        cache = cache_at(self.alias)
        if isinstance(cache, BaseMemcachedCache) and len(cache.make_key("x" * LONGEST)) > MEMCACHED_KEY:
            raise ConfigurationError(
                f"ResultCache of {self.task_name}: the keys of the cache {self.alias!r} may become longer than "
                f"the {MEMCACHED_KEY} characters that Memcached takes; shorten its KEY_PREFIX"
            )

    def _ask(self, call: Call, *, anew: bool) -> TaskState:
        try:
            kept = look(self.alias, call.key, call.tags)
        except RAISED:
            raise
        except Exception as exc:  # each cache has errors of its own
            return self._without_cache(call, exc)
        if kept is not None and not anew:
            age = time.time() - kept.stored_at
            if self._timeout is None or age < self._timeout:
                return hit(kept, age, self._timeout, self.alias)
        return self._dispatcher.ask(call, kept, anew=anew)

    def _without_cache(self, call: Call, exc: Exception) -> TaskState:
        self.check()  # a cache that can't be used for this is not one that is away
        return self._dispatcher.without_cache(call, exc)


def declared() -> list[ResultCache]:
    """Return all that this process has, by the names of their tasks."""
    return sorted(_declared, key=lambda cache: cache.task_name)
