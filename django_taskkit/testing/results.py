"""A result backend in memory that belongs to one block of one test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import TimeoutError as CeleryTimeoutError

base: Any = KeyValueStoreBackend  # whose stubs leave its methods out


class NotReadyError(CeleryTimeoutError):  # type: ignore[misc, unused-ignore]
    """Somebody waits for a result in the very process that would have to produce it."""


class MemoryBackend(base):  # type: ignore[misc]
    """Keeps results in a dict, and doesn't wait for one that nobody will bring."""

    supports_native_join = True
    implements_incr = True
    supports_autoexpire = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._values: dict[Any, Any] = {}

    def get(self, key: Any) -> Any:
        return self._values.get(key)

    def mget(self, keys: Any) -> dict[Any, Any]:
        return {key: self._values.get(key) for key in keys}

    def set(self, key: Any, value: Any) -> None:
        self._values[key] = value

    def delete(self, key: Any) -> None:
        self._values.pop(key, None)

    def incr(self, key: Any) -> int:
        self._values[key] = int(self._values.get(key) or 0) + 1
        return int(self._values[key])

    def expire(self, key: Any, value: Any) -> bool:
        return True

    def as_uri(self, include_password: bool = True) -> str:
        return "django-taskkit-test://"

    def wait_for(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        """Return what is stored of a task that is done.

        Raises:
            NotReadyError: it is not done.
        """
        meta = self.get_task_meta(task_id)
        self._refuse_unready(task_id, meta)
        return meta

    def get_many(self, task_ids: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        ids = list(task_ids)
        for task_id in ids:
            self._refuse_unready(task_id, self.get_task_meta(task_id))
        yield from super().get_many(ids, *args, **kwargs)

    def _refuse_unready(self, task_id: str, meta: Any) -> None:
        if meta["status"] not in self.READY_STATES:
            raise NotReadyError(
                f"task {task_id} is {meta['status']}, and nothing runs it while this waits; call tasks.run() first, "
                "or tasks.advance_retries() if a retry of it is due later"
            )
