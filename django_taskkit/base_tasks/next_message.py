"""What the message says that runs a task again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from django_taskkit.base_tasks.decision import Again
from django_taskkit.base_tasks.rules import DEFAULT
from django_taskkit.envelope import (
    FIRST_FAILED_HEADER,
    HOME_HEADER,
    PREVIOUS_DELAY_HEADER,
    RETRIES_BY_HEADER,
    TRANSIT_HEADERS,
    WAITS_FOR_HEADER,
    WAITS_HEADER,
)
from django_taskkit.origin import origin_of


def headers_of(request: Any, again: Again, *, waits_for: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the headers of the message that follows the run of ``request``.

    Args:
        waits_for: what has put it off, if something has.
        given: what the task itself says.
    """
    # Without the broker's own, from which RabbitMQ may conclude that the message runs in circles.
    headers = {name: value for name, value in (request.headers or {}).items() if name not in TRANSIT_HEADERS}
    headers.update(given or {})
    before = headers.pop(WAITS_HEADER, 0)
    headers.pop(WAITS_FOR_HEADER, None)
    if waits_for:
        headers[WAITS_HEADER] = (before if isinstance(before, int) else 0) + 1
        headers[WAITS_FOR_HEADER] = waits_for
    if again.failed and not isinstance(headers.get(FIRST_FAILED_HEADER), (int, float)):
        headers[FIRST_FAILED_HEADER] = time.time()
    if again.counted:
        if again.by_policy:
            headers[PREVIOUS_DELAY_HEADER] = again.delay
        if again.name != DEFAULT:
            counts = counts_of(headers.get(RETRIES_BY_HEADER))
            headers[RETRIES_BY_HEADER] = {**counts, again.name: counts.get(again.name, 0) + 1}
    return headers


def counts_of(header: object) -> dict[str, int]:
    """Return how many retries each policy has caused, from a header that anybody may have written."""
    counts = header if isinstance(header, Mapping) else {}
    return {str(name): count for name, count in counts.items() if isinstance(count, int) and count > 0}


def home_and_lane(task: Any, options: dict[str, Any]) -> None:
    """Send a retry to the task's ``retry_queue``, if it has one, and note where it came from."""
    request = task.request
    lane = task.retry_queue
    if not lane or "queue" in options or request.is_eager:
        return
    exchange, routing_key, queue = origin_of(task.app, request.delivery_info or {})
    if HOME_HEADER not in options["headers"] and queue != lane:
        options["headers"][HOME_HEADER] = [exchange, routing_key, queue]
    options["queue"] = lane
