"""The way of a run through the gates of its task; the gates themselves have tests of their own."""

import pytest

from django_taskkit.base_tasks.gates import Answer, Outcome, Run, Wait
from django_taskkit.base_tasks.gates.passage import Passage


class Recording:
    """A gate that notes what it is told, and says what it was made to say."""

    def __init__(self, log, name, *, enter=None, leave=None):
        self.log, self.name, self._enter, self._leave = log, name, enter, leave

    def enter(self, run):
        self.log.append(f"enter {self.name}")
        if isinstance(self._enter, Wait):
            raise self._enter
        return self._enter

    def leave(self, run, outcome, *, result=None, delay=None):
        self.log.append(f"leave {self.name} {outcome.value} {result} {delay}")
        if isinstance(self._leave, Exception) and not isinstance(self._leave, Wait):
            raise self._leave
        return self._leave


@pytest.fixture
def passing():
    """Build a passage through gates that are named a, b, c; options by name."""
    log = []

    def build(*gates):
        made = [Recording(log, name, **options) for name, options in zip("abc", gates, strict=False)]
        return Passage(tuple(made), Run(task=None, request=None, args=(), kwargs={}))

    return log, build


def test_gates_are_entered_in_order_and_left_the_other_way_round(passing):
    log, build = passing
    passage = build({}, {})

    assert passage.enter() is None
    passage.leave(Outcome.SUCCEEDED, result=7)

    assert log == ["enter a", "enter b", "leave b succeeded 7 None", "leave a succeeded 7 None"]


def test_only_the_first_outcome_counts(passing):
    log, build = passing
    passage = build({})
    passage.enter()

    passage.leave(Outcome.RETRIED, delay=5)
    passage.leave(Outcome.SUCCEEDED)

    assert log[1:] == ["leave a retried None 5"]


def test_a_gate_that_answers_is_the_last_that_is_asked(passing):
    log, build = passing
    passage = build({}, {"enter": Answer(None)}, {})

    assert passage.enter() == Answer(None)
    assert log == ["enter a", "enter b", "leave a ended None None"]


def test_when_a_later_gate_has_the_message_wait_the_earlier_are_told_how_long(passing):
    log, build = passing
    passage = build({}, {"enter": Wait("not now")}, {})

    with pytest.raises(Wait, match="not now"):
        passage.enter()
    passage.leave(Outcome.SNOOZED, delay=30)

    assert log == ["enter a", "enter b", "leave a snoozed None 30"]


def test_of_several_waits_the_longest_counts(passing):
    _log, build = passing
    passage = build({"leave": Wait("a", base=10)}, {"leave": Wait("b", base=1, at_least=60)})
    passage.enter()

    assert passage.leave(Outcome.RETRIED, delay=1) == (60, "b")


def test_when_a_retry_is_to_wait_the_gates_around_are_told_how_long_that_is(passing):
    log, build = passing
    passage = build({}, {"leave": Wait("over budget", base=600)}, {})
    passage.enter()

    assert passage.leave(Outcome.RETRIED, delay=2, waiting=lambda wait: wait.base + 7).seconds == 607
    assert log[3:] == ["leave c retried None 2", "leave b retried None 2", "leave a retried None 607"]


def test_a_wait_that_is_shorter_than_the_retrys_own_delay_changes_nothing_for_them(passing):
    log, build = passing
    passage = build({}, {"leave": Wait("over budget", base=30)})
    passage.enter()

    passage.leave(Outcome.RETRIED, delay=50)

    assert log[-1] == "leave a retried None 50"


def test_a_gate_that_breaks_when_it_is_left_does_not_change_what_became_of_the_run(passing, caplog):
    log, build = passing
    passage = build({}, {"leave": KeyError("odd")})
    passage.enter()

    assert passage.leave(Outcome.SUCCEEDED) is None
    assert log[-1] == "leave a succeeded None None"
    assert "could not note that its run succeeded" in caplog.text


def test_one_that_is_exhausted_is_none_any_more_to_the_gates_around_if_it_may_wait(passing):
    log, build = passing
    passage = build({}, {"leave": Wait("over budget", base=600)})
    passage.enter()

    assert passage.leave(Outcome.EXHAUSTED) == (600, "over budget")
    assert log[2:] == ["leave b exhausted None None", "leave a retried None 600"]


def test_it_stays_exhausted_if_it_may_not(passing):
    log, build = passing
    passage = build({}, {"leave": Wait("over budget", base=600)})
    passage.enter()

    assert passage.leave(Outcome.EXHAUSTED, may_wait=False) is None
    assert log[2:] == ["leave b exhausted None None", "leave a exhausted None None"]
