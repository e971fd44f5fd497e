"""The plot of `taskkit schedule`, and how lengths of time are written."""

import math

import pytest

from django_taskkit.base_tasks.survival import Spread
from django_taskkit.management.plot import ASCII, UNICODE, Axis, bar, curve, duration, pen_for, plot


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.4, "0s"),
        (59.6, "1m"),
        (61, "1m 1s"),
        (600, "10m"),
        (3600, "1h"),
        (3601, "1h"),
        (3660, "1h 1m"),
        (86400 + 3600, "1d 1h"),
        (10**8, "1157d 9h"),
        (math.inf, "any"),
    ],
)
def test_a_length_of_time_has_two_units_at_most(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("encoding", "pen"),
    [("utf-8", UNICODE), ("ascii", ASCII), ("latin-1", ASCII), ("cp437", ASCII), (None, ASCII), ("klingon", ASCII)],
)
def test_what_a_terminal_cant_show_is_not_drawn_with(encoding, pen):
    assert pen_for(encoding) is pen


def test_a_bar_goes_from_the_least_to_the_most():
    axis = Axis(21, 100)  # ten columns for each factor of ten

    assert bar(axis, ASCII, Spread(1, 10, 100)) == "|---------o---------|"
    assert bar(axis, ASCII, Spread(10, 10, 10)) == "          o" + " " * 10
    assert bar(axis, ASCII, Spread(0, 0, 0)) == "o" + " " * 20
    assert bar(axis, ASCII, Spread(1, 1, 10), outage=100) == "o---------|         :"


def test_an_axis_names_times_that_people_know():
    line, labels = Axis(21, 100).lines(ASCII)

    assert labels == "1s        10s     1m"
    assert [labels[column] for column, mark in enumerate(line) if mark == "+"] == ["1", "1", "1"]


def test_labels_never_touch():
    _, labels = Axis(20, 10**9).lines(ASCII)

    assert labels.split() == [label for label in labels.split(" ") if label]
    assert len(labels) <= 20


def test_a_curve_falls_from_the_top_to_the_bottom():
    lines = curve(Axis(20, 100), ASCII, lambda seconds: 1 - min(1, seconds / 100))

    assert len(lines) == 4
    assert all(line[0] == "#" for line in lines)
    assert [line[-1] for line in lines] == [" ", " ", " ", " "]
    filled = [line.count("#") for line in lines]
    assert filled == sorted(filled)


def test_the_least_of_odds_is_to_be_seen():
    assert curve(Axis(20, 100), UNICODE, lambda seconds: 1e-6)[-1] == "▁" * 20


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_plot_is_as_wide_as_it_may_be(width):
    bars = [("retry 1", Spread(1, 1, 2)), ("...", None), ("retry 100", Spread(50, 60, 100))]

    lines = plot(bars, lambda seconds: 1.0, longest=100, width=width, pen=UNICODE)

    assert max(map(len, lines)) == width
    assert lines[-2] == "      ..."
    assert lines[-1].startswith("retry 100 ")
