"""All pairs of answers, in few projects."""

import itertools

import pytest


def all_pairs(options, impossible):
    """Return rows of answers in which each pair of two options' values occurs that is possible.

    Greedy: a row starts with the first pair that is missing, and takes for each other option the value that brings
    most of those that are. The same each time.

    Args:
        options: the values of each option.
        impossible: answers that exclude each other, as dicts.
    """

    def is_possible(row):
        return not any(excluded.items() <= row.items() for excluded in impossible)

    pairs = [
        {first: one, second: other}
        for first, second in itertools.combinations(options, 2)
        for one, other in itertools.product(options[first], options[second])
    ]
    missing = [pair for pair in pairs if is_possible(pair)]
    rows = []
    while missing:
        row = missing[0]
        for option in sorted(options.keys() - row.keys(), key=list(options).index):
            choices = [{**row, option: value} for value in options[option]]
            choices = [choice for choice in choices if is_possible(choice)]
            row = max(choices, key=lambda choice: sum(pair.items() <= choice.items() for pair in missing))
        missing = [pair for pair in missing if not pair.items() <= row.items()]
        rows.append({option: row[option] for option in options})
    return rows


def partly(rows, number, name):
    """Return all rows as parameters of a test, of which only the first are tried without `make template`."""
    return [
        pytest.param(row, id=name(row), marks=() if place < number else pytest.mark.boot)
        for place, row in enumerate(rows)
    ]
