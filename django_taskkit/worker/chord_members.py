"""Members of a chord whose process is killed between their end and their report.

Celery 5.7 takes such a member for done and acknowledges its message, although the chord still waits for it. And with
Redis the process that reports the last member claims the chord before it sends the body. Killed in between, it holds
the claim for some seconds, and the report of nobody else starts the body meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from celery import states
from celery.worker import state

from django_taskkit.dlq.models import Reason
from django_taskkit.worker.outside import record_request
from django_taskkit.worker.this_consumer import later

logger = logging.getLogger("django_taskkit")

LONGEST_CLAIM = 60.0
"""Seconds to wait for the claim of another process; Celery's own last 10 as a rule."""

MOST_CLAIMS = 3
"""How many claims the worker waits for in the place of one process."""


def install(backend: Any) -> None:
    """Have members that were delivered again outlast the claim of a dead process; ``backend`` is a class, once.

    Called for the classes that are in use: to import Redis' own would cost every process that uses another one.
    """
    stock = backend.on_chord_part_return
    if _has_claims(backend) and not hasattr(stock, "has_taskkit"):
        backend.on_chord_part_return = _outlasting_claims(stock)


def _outlasting_claims(stock: Callable[..., None]) -> Callable[..., None]:
    @wraps(stock)
    def on_chord_part_return(self: Any, request: Any, *args: Any, **kwargs: Any) -> None:
        stock(self, request, *args, **kwargs)
        if request.group and (getattr(request, "delivery_info", None) or {}).get("redelivered"):
            outlast_claim(self, request, lambda: stock(self, request, *args, **kwargs))

    on_chord_part_return.has_taskkit = True  # type: ignore[attr-defined]
    return on_chord_part_return


def outlast_claim(
    backend: Any, request: Any, report: Callable[[], object], sleep: Callable[[float], object] = time.sleep
) -> None:
    """Call ``report`` once more when a claim on the chord of ``request`` is over, if there is one."""
    waited, claim = 0.0, claim_left(backend, request)
    if not claim:
        return
    while claim and waited < LONGEST_CLAIM:
        sleep(claim)
        waited += claim
        claim = claim_left(backend, request)
    report()


def claim_left(backend: Any, request: Any) -> float:
    """Return the seconds for which some process still claims the chord; 0 if none does, or the body was sent."""
    if not _has_claims(backend):
        return 0.0
    key = backend.get_key_for_group(request.group, ".c")
    if backend.client.get(key) in (None, b"done", "done"):
        return 0.0
    milliseconds: int = backend.client.pttl(key)
    return max(0.1, min(LONGEST_CLAIM, milliseconds / 1000 + 0.1))


def report_member(request: Any, success: dict[str, Any], go_on: Callable[[], object]) -> bool:
    """Report the success of a chord's member in the place of its process, which was killed after it had stored it.

    ``success`` is what it stored. True if a process claims the chord, which may be the dead one: ``go_on`` is called
    when the claim is over, to come here again. Until then the message must not be acknowledged, as this process may
    end too, and a member that is delivered again is reported.

    Only to backends that count a member once, however often it is reported: Redis since Celery 5.7, and
    django-celery-results with :mod:`django_taskkit.worker.chords`. Where that fails the chord would wait for ever, so
    the member is a dead letter: requeued, it is counted.
    """
    backend, context = request.task.backend, request._context
    if not (context.chord and context.group and hasattr(backend.on_chord_part_return, "has_taskkit")):
        return False
    try:
        backend.on_chord_part_return(context, states.SUCCESS, success.get("result"))
        claim = claim_left(backend, context)
    except Exception as exc:
        record_request(request, Reason.RESULT_LOST, exc, body_ran=True)
        return False
    if not claim or request.taskkit_claims >= MOST_CLAIMS:
        return False
    request.taskkit_claims += 1
    logger.warning("task %s[%s]: its chord is claimed; it is reported again in %.0f s", request.name, request.id, claim)
    state.task_ready(request)
    later(claim, go_on)  # this is the worker's loop, which can't wait
    return True


def _has_claims(backend: Any) -> bool:
    """Say whether it is Celery's Redis backend, since 5.7."""
    return hasattr(backend, "_chord_publish_claim_expires")
