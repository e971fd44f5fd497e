"""The option of a task that names a dependency: its budget, its breaker."""

import pytest

from django_taskkit.base_tasks import BaseTaskWithRetry, CircuitBreaker, RetryBudget
from django_taskkit.base_tasks.gates import breaker, budget
from django_taskkit.exceptions import ConfigurationError

KINDS = {
    "budget": ("retry_budget", RetryBudget, budget.budget_of, budget.gate_of),
    "breaker": ("breaker", CircuitBreaker, breaker.breaker_of, breaker.gate_of),
}
each_kind = pytest.mark.parametrize(("option", "kind", "named_by", "gate_of"), KINDS.values(), ids=KINDS)


def task(**options):
    return type("Task", (), {"name": "t.task", **options})()


@each_kind
def test_a_name_alone_stands_for_one_with_the_defaults(option, kind, named_by, gate_of):
    assert named_by(task(**{option: "stripe"})) == kind("stripe")


@each_kind
def test_tasks_that_name_the_same_share_a_gate(option, kind, named_by, gate_of):
    assert gate_of(task(**{option: "stripe"})) is gate_of(task(**{option: "stripe"}))


@each_kind
def test_a_task_that_names_nothing_has_no_gate(option, kind, named_by, gate_of):
    assert named_by(BaseTaskWithRetry()) is None
    assert gate_of(BaseTaskWithRetry()) is None


@each_kind
@pytest.mark.parametrize("value", [5, ["stripe"], "", " ", "x" * 101])
def test_what_is_no_name_is_refused_with_task_and_value(option, kind, named_by, gate_of, value):
    with pytest.raises(ConfigurationError) as caught:
        gate_of(task(**{option: value}))

    assert "t.task" in str(caught.value)
    assert repr(value) in str(caught.value)
