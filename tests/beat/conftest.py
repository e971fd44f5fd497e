"""Beats without processes: places that can be away, and clocks that a test turns."""

import time
from dataclasses import replace

import pytest

from django_taskkit.beat.database import DatabasePlace
from django_taskkit.beat.lease import Lease
from django_taskkit.beat.place import PlaceError, Sign
from django_taskkit.beat.store import StorePlace


class Clock:
    def __init__(self):
        self.now = float(int(time.time()))  # entries of a schedule have no other clock

    def __call__(self):
        return self.now

    def pass_by(self, seconds):
        self.now += seconds


class Away:
    """A place that is out of reach while `is_away`."""

    def __init__(self, place):
        self.place = place
        self.is_away = False
        self.calls = 0

    def __getattr__(self, name):
        def call(*args):
            self.calls += 1
            if self.is_away:
                raise PlaceError("it is away")
            return getattr(self.place, name)(*args)

        return call


SIGN = Sign(
    holder="first",
    host="web1",
    pid=1,
    process="",
    scheduler="a.b:C",
    started_at=0.0,
    seen_at=0.0,
    next_due_at=None,
    is_released=False,
    version=0,
)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["database", "store"])
def place(request, db, settings):
    if request.param == "database":
        return Away(DatabasePlace("shop"))
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "beat"}}
    from django.core.cache import cache

    cache.clear()
    return Away(StorePlace("shop"))


@pytest.fixture
def beat(place, clock):
    """``beat("second")`` is a lease of another process; all have one clock."""
    return lambda holder="first", **facts: Lease(place, replace(SIGN, holder=holder, **facts), clock=clock, wall=clock)
