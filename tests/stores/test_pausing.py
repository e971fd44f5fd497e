"""A store that is out of reach is left alone for a while."""

import logging
import threading

import pytest

from django_taskkit.exceptions import StoreError
from django_taskkit.stores.pausing import LONGEST, SHORTEST, PausingStore, Warnings


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Unsteady:
    """A store that works, or doesn't, as it is told; it counts how often it is asked."""

    def __init__(self):
        self.works, self.asked = False, 0

    def read(self, key):
        self.asked += 1
        if not self.works:
            raise StoreError("gone")
        return b"1"

    def swap(self, key, old, new, *, ttl):
        return self.read(key) == old


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def below():
    return Unsteady()


@pytest.fixture
def store(below, clock):
    return PausingStore(below, clock)


def fails(store):
    try:
        store.read("key")
    except StoreError as exc:
        return "gone" in str(exc)
    return False


def test_what_works_is_asked_each_time(store, below):
    below.works = True

    assert store.read("key") == b"1"
    assert store.swap("key", b"1", b"2", ttl=1)
    assert below.asked == 2


def test_after_a_failure_it_is_not_asked_until_the_pause_is_over(store, below, clock):
    assert all(fails(store) for _ in range(10))
    assert below.asked == 1

    clock.now = SHORTEST
    assert fails(store)
    assert below.asked == 2


def test_pauses_grow_up_to_the_longest(store, below, clock):
    pauses = []
    for _ in range(8):
        assert fails(store)
        asked, began = below.asked, clock.now
        while below.asked == asked:
            clock.now += 0.5
            fails(store)
        pauses.append(clock.now - began)

    assert pauses[0] == SHORTEST
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST


def test_when_it_is_back_it_is_asked_each_time_and_the_next_pause_is_short_again(store, below, clock):
    for _ in range(4):
        fails(store)
        clock.now += LONGEST
    below.works = True
    assert not any(fails(store) for _ in range(3))

    below.works = False
    fails(store)
    asked = below.asked
    clock.now += SHORTEST

    assert fails(store)
    assert below.asked == asked + 1


def test_one_of_many_threads_finds_out_whether_it_is_back(clock):
    release, inside = threading.Event(), threading.Event()

    class Slow(Unsteady):
        def read(self, key):
            if self.asked:
                inside.set()
                release.wait(30)
            return super().read(key)

    below = Slow()
    store = PausingStore(below, clock)
    fails(store)
    clock.now = SHORTEST
    first = threading.Thread(target=fails, args=(store,))
    first.start()
    assert inside.wait(30)

    assert all(fails(store) for _ in range(5))

    release.set()
    first.join()
    assert below.asked == 2


def test_the_same_matter_is_logged_once_a_minute(clock, caplog):
    warnings = Warnings(clock)
    with caplog.at_level(logging.WARNING, "django_taskkit"):
        for clock.now in (0, 1, 59, 60, 61):
            warnings.say("a", "a at %s", clock.now)
            warnings.say("b", "b at %s", clock.now)

    assert [record.getMessage() for record in caplog.records] == ["a at 0", "b at 0", "a at 60", "b at 60"]
