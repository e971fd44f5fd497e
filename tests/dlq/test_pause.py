"""Gaps between many writes in a row."""

import pytest

from django_taskkit.dlq.pause import Gaps


class Time:
    """A clock that runs when somebody sleeps or writes."""

    def __init__(self):
        self.now = 100.0
        self.slept = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def write_for(seconds, vendor, each=0.1):
    time = Time()
    gaps = Gaps(vendor, time, time.sleep)
    for _ in range(round(seconds / each)):
        gaps.leave()
        time.now += each
    return time.slept


def test_on_sqlite_others_get_their_turn_about_once_a_second():
    assert write_for(0.9, "sqlite") == []
    assert write_for(5, "sqlite") == [Gaps.LENGTH] * 4


def test_slow_writes_leave_a_gap_after_each():
    assert write_for(9, "sqlite", each=3) == [Gaps.LENGTH] * 2


@pytest.mark.parametrize("vendor", ["postgresql", "mysql"])
def test_databases_that_lock_rows_need_no_gaps(vendor):
    assert write_for(60, vendor) == []
