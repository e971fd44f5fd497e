"""Who is silent keeps nobody else from being heard."""

import threading

import pytest

from django_taskkit.beat.place import PlaceError
from django_taskkit.dlq.durable import NoConnectionError
from django_taskkit.observability.metrics.side_by_side import Question, SideBySide


@pytest.fixture
def side_by_side():
    return SideBySide(lambda: None)


@pytest.fixture
def silent():
    """Gives one number, and then nothing more until the test is over."""
    over = threading.Event()

    def ask():
        yield 1
        over.wait()

    yield ask
    over.set()


def broken(exc):
    def ask():
        yield 1
        raise exc

    return ask


def test_what_is_there_at_the_deadline_is_told_and_the_rest_is_not_waited_for(side_by_side, silent):
    questions = [Question("one", "broker", silent), Question("two", "broker", lambda: [2])]
    answers = side_by_side.ask([*questions, Question("three", "database", lambda: [3])], 0.2)

    assert {name: (answer.found, answer.is_whole) for name, answer in answers.items()} == {
        "one": ([1], False),
        "two": ([], False),
        "three": ([3], True),
    }
    assert str(answers["one"].error) == "no answer in 0.2 s"


def test_who_still_owes_an_answer_is_not_asked_again(side_by_side, silent):
    side_by_side.ask([Question("one", "broker", silent)], 0.01)
    before = threading.active_count()
    answers = side_by_side.ask([Question("one", "broker", silent)], 60)

    assert threading.active_count() == before
    assert not answers["one"].is_whole
    assert "the broker still owes an answer" in str(answers["one"].error)


@pytest.mark.parametrize("whom", ["database", "here"])
def test_a_database_out_of_reach_is_asked_nothing_else(side_by_side, whom):
    error, asked = PlaceError("beat"), []
    error.__cause__ = NoConnectionError("silent")
    questions = [Question("one", whom, broken(error)), Question("two", whom, lambda: asked.append(2) or [])]

    answers = side_by_side.ask(questions, 60, here={"here"})

    assert asked == []
    assert answers["one"].error is error
    assert answers["two"].error is error.__cause__


def test_another_error_is_that_questions_alone(side_by_side):
    questions = [Question("one", "database", broken(LookupError())), Question("two", "database", lambda: [2])]

    answers = side_by_side.ask(questions, 60)

    assert (answers["one"].found, answers["one"].is_whole) == ([1], False)
    assert (answers["two"].found, answers["two"].is_whole) == ([2], True)
