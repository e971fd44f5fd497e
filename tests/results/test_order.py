"""What a message says of where its result goes."""

from __future__ import annotations

import pytest

from django_taskkit.results.order import read_order

HEADER = {
    "cache": "default",
    "key": "taskkit:result:v1:shop.report:{}",
    "timeout": 300,
    "stale_for": 0,
    "lock_timeout": 900,
    "error_timeout": 60,
    "lease": 60,
    "task_id": "7",
}


@pytest.mark.parametrize("name", ["timeout", "stale_for", "lock_timeout", "error_timeout"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1], ids=str)
def test_a_header_with_a_time_that_is_none_is_none_of_ours(name, value):
    """A lock_timeout below 0, or NaN, has the renewing thread turn without a pause."""
    assert read_order(HEADER) is not None
    assert read_order({**HEADER, name: value}) is None
