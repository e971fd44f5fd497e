"""The retries of a task that uses Celery's own ``autoretry_for``, as Celery computes them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django_taskkit.backoff import Uniform


@dataclass(frozen=True, kw_only=True)
class CeleryAutoretry:
    """``min(retry_backoff_max, int(retry_backoff) * 2 ** n)``, spread over 0 to that (celery/app/autoretry.py)."""

    max_retries: int | None
    factor: int
    """Seconds before the first retry; 0: every retry comes after ``countdown``."""
    maximum: int
    full_jitter: bool
    countdown: float

    def delay(self, retry: int, *, uniform: Uniform = random.uniform) -> int:
        if not self.factor:
            return int(self.countdown)
        seconds = min(self.maximum, self.factor << min(retry, 64))
        return max(0, min(seconds, int(uniform(0, seconds + 1))) if self.full_jitter else seconds)

    def schedule(self, *, uniform: Uniform = random.uniform) -> Iterator[int]:
        """Yield the delays in whole seconds of a task that fails each time."""
        for retry in itertools.count() if self.max_retries is None else range(self.max_retries):
            yield self.delay(retry, uniform=uniform)


def autoretry_of(task: Any) -> CeleryAutoretry | None:
    """Return how Celery retries ``task``, None if it doesn't, or not by itself."""
    if not hasattr(task, "_orig_run"):  # what Celery sets when it wraps the task in its loop
        return None
    options = dict(getattr(task, "retry_kwargs", None) or {})
    limit = options.get("max_retries")
    backoff = float(getattr(task, "retry_backoff", False))
    return CeleryAutoretry(
        max_retries=task.max_retries if limit is None else limit,
        factor=int(max(1.0, backoff)) if backoff else 0,
        maximum=int(getattr(task, "retry_backoff_max", 600)),
        full_jitter=bool(getattr(task, "retry_jitter", True)),
        countdown=float(options.get("countdown", task.default_retry_delay)),
    )
