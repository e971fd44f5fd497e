"""A bar on a terminal, lines elsewhere."""

import io

import pytest
from django.core.management.base import OutputWrapper

from django_taskkit.management.progress import Progress


class Stream(io.StringIO):
    terminal = False

    def isatty(self):
        return self.terminal


class Terminal(Stream):
    terminal = True


@pytest.fixture
def clock():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")


def test_on_a_terminal_one_line_is_drawn_over_and_over(clock):
    stream = Terminal()
    with Progress(OutputWrapper(stream), 10, clock) as progress:
        progress.advance(1)
        clock.now = 1
        progress.show(5, "2 refused")

    assert stream.getvalue() == (
        "\r[##..................] 10 % 1 of 10\x1b[K"
        "\r[##########..........] 50 % 5 of 10, 2 refused\x1b[K"
        "\r[##########..........] 50 % 5 of 10, 2 refused\x1b[K\n"
    )


def test_a_terminal_is_not_drawn_on_more_often_than_the_eye_sees(clock):
    stream = Terminal()
    progress = Progress(stream, 1000, clock)
    for _ in range(1000):
        clock.now += 0.001
        progress.advance()

    assert stream.getvalue().count("\r") <= 11


def test_a_line_never_wraps(clock):
    stream = Terminal()
    Progress(stream, 10, clock).show(1, "x" * 200)

    assert len(stream.getvalue().strip("\r").removesuffix("\x1b[K")) == 59


def test_elsewhere_there_is_a_line_every_five_seconds_and_one_at_the_end(clock):
    stream = Stream()
    with Progress(stream, 12, clock) as progress:
        for _ in range(12):
            clock.now += 1
            progress.advance()

    assert stream.getvalue().splitlines() == ["41 % 5 of 12", "83 % 10 of 12", "100 % 12 of 12"]


def test_what_is_quick_is_not_reported_elsewhere(clock):
    stream = Stream()
    with Progress(stream, 3, clock) as progress:
        progress.advance(3)

    assert stream.getvalue() == ""


def test_a_dumb_terminal_gets_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    progress = Progress(stream, 3, clock)
    clock.now = 5
    progress.advance(3)

    assert stream.getvalue() == "100 % 3 of 3\n"


def test_nothing_to_do_is_all_done(clock):
    stream = Terminal()
    Progress(stream, 0, clock).show(0)

    assert "100 % 0 of 0" in stream.getvalue()


def test_it_can_be_taken_away(clock):
    stream = Terminal()
    with Progress(stream, 2, clock) as progress:
        progress.advance()
        progress.clear()

    assert stream.getvalue().endswith("\r\x1b[K")


def test_a_reader_that_is_gone_disturbs_nothing(clock):
    stream = Terminal()
    with Progress(stream, 2, clock) as progress:
        stream.close()
        progress.advance()

    assert progress.done == 1
