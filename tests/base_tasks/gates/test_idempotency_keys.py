"""Which calls have the same idempotency key, and what the key is called."""

from __future__ import annotations

import uuid
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_taskkit.base_tasks import BaseTaskWithRetry, Permanent
from django_taskkit.base_tasks.gates.keys import call_key_of
from django_taskkit.call_keys import LONGEST, key_text
from django_taskkit.exceptions import ConfigurationError


@pytest.fixture
def charge(station):
    def make(key, name="shop.charge"):
        @station.app.task(base=BaseTaskWithRetry, name=name, idempotency_key=key)
        def charge(order_id, currency="EUR", *more, note="", **rest): ...

        return station.app.tasks[charge.name]

    return make


def key_of(task, *args, **kwargs):
    return call_key_of(task)(args, kwargs)


def test_a_key_says_which_task_and_which_arguments(charge):
    assert key_of(charge("order_id"), 7) == 'taskkit:once:shop.charge:{"order_id":7}'


def test_positional_arguments_keywords_and_defaults_make_the_same_key(charge):
    task = charge(("order_id", "currency"))

    keys = {
        key_of(task, 7),
        key_of(task, 7, "EUR"),
        key_of(task, order_id=7),
        key_of(task, currency="EUR", order_id=7),
        key_of(task, 7, note="something else"),
    }

    (key,) = keys
    assert key.startswith('taskkit:once:shop.charge:{"currency":"EUR","order_id":7}#')


@pytest.mark.parametrize("other", ["7", 7.0, 8, True, None, [7], {"id": 7}])
def test_values_that_differ_make_different_keys(charge, other):
    task = charge("order_id")

    assert key_of(task, 7) != key_of(task, other)


def test_case_is_kept(charge):
    task = charge("order_id")

    assert key_of(task, "A-7") != key_of(task, "a-7")


def test_two_tasks_share_no_key(charge):
    assert key_of(charge("order_id"), 7) != key_of(charge("order_id", "shop.refund"), 7)


def test_the_order_of_names_and_of_the_keys_of_a_dict_makes_no_difference(charge):
    task = charge(("order_id", "note"))
    first = key_of(task, {"b": 1, "a": 2}, note="x")
    task.idempotency_key = ["note", "order_id"]

    assert key_of(task, note="x", order_id={"a": 2, "b": 1}) == first


def test_all_that_celery_can_send_as_json_may_be_in_a_key(charge):
    task = charge("order_id")
    values = [uuid.UUID(int=7), Decimal("1.50"), date(2026, 11, 21), b"7", [1, {"a": None}]]

    assert len({key_of(task, value) for value in values}) == len(values)


def test_no_names_at_all_make_one_key_for_the_whole_task(charge):
    task = charge(())

    assert key_of(task, 7) == key_of(task, 8, note="x") == "taskkit:once:shop.charge:{}"


def test_an_argument_that_only_some_calls_have_is_none_for_the_others(charge):
    task = charge("tenant")

    assert key_of(task, 7, tenant="t1") != key_of(task, 7)
    assert key_of(task, 7) == key_of(task, 8, tenant=None)


def test_a_bound_task_is_no_part_of_the_key(station):
    @station.app.task(base=BaseTaskWithRetry, name="shop.bound", bind=True, idempotency_key="order_id")
    def bound(self, order_id): ...

    assert key_of(station.app.tasks[bound.name], 7) == 'taskkit:once:shop.bound:{"order_id":7}'


def test_a_call_that_does_not_fit_the_task_has_no_key(charge):
    assert key_of(charge("order_id")) is None


def test_a_function_takes_the_arguments_of_the_task_and_returns_the_key(charge):
    task = charge(lambda order_id, currency="EUR", **rest: f"{order_id} {currency}")

    assert key_of(task, 7) == key_of(task, order_id=7)
    assert key_of(task, 7).startswith('taskkit:once:shop.charge:"7\\u0020EUR"#')


def test_a_key_with_capital_letters_is_told_from_others_by_what_no_database_changes(charge):
    """MariaDB takes capital letters for small ones."""
    task = charge("order_id")

    assert key_of(task, "A-7").lower() != key_of(task, "a-7").lower()


def test_a_function_may_say_that_a_call_has_no_key(charge):
    assert key_of(charge(lambda order_id: None), 7) is None


def test_a_function_may_be_any_callable_and_a_method_of_the_tasks_class(station):
    class Described(BaseTaskWithRetry):
        name = "shop.described"

        def run(self, order_id): ...

        def idempotency_key(self, order_id):
            return f"{self.name}-{order_id}"

    class Static(BaseTaskWithRetry):
        name = "shop.static"
        idempotency_key = staticmethod(lambda order_id: f"static-{order_id}")

        def run(self, order_id): ...

    described, static = (station.app.register_task(cls()) for cls in (Described, Static))

    assert key_of(described, 7).endswith('"shop.described-7"')
    assert key_of(static, 7).endswith('"static-7"')
    static.idempotency_key = "{}".format  # as task_annotations do
    assert key_of(static, 7).endswith('"7"')


@pytest.mark.parametrize("said", [7, "", b"7", True, ["7"]])
def test_a_function_that_returns_no_text_fails_its_task_for_good(charge, said):
    with pytest.raises(Permanent, match=r"shop\.charge returned .*; return a text, or None"):
        key_of(charge(lambda order_id: said), 7)


def test_what_a_function_raises_is_the_failure_of_its_task(charge):
    with pytest.raises(ZeroDivisionError):
        key_of(charge(lambda order_id: str(1 / order_id)), 0)


@pytest.mark.parametrize("value", [object(), {1, 2}, [{"a": {3}}], 1j])
def test_values_that_json_does_not_know_fail_the_task_for_good_instead_of_running_it_unprotected(charge, value):
    with pytest.raises(Permanent, match="order_id can't be written as JSON"):
        key_of(charge("order_id"), value)


@pytest.mark.parametrize("option", [True, 7, ("order_id", 7), object()])
def test_an_option_that_makes_no_sense_is_refused(charge, option):
    with pytest.raises(ConfigurationError, match=r"shop\.charge: idempotency_key: .* makes no sense; give names"):
        call_key_of(charge(option))


def test_a_name_that_the_task_does_not_have_is_refused(station):
    @station.app.task(base=BaseTaskWithRetry, name="shop.refund", idempotency_key=("order_id", "currency"))
    def refund(order, currency): ...

    with pytest.raises(ConfigurationError) as caught:
        call_key_of(station.app.tasks[refund.name])

    assert str(caught.value) == (
        "shop.refund: idempotency_key: the task has no argument 'order_id'; its arguments are 'order', 'currency'"
    )


def test_a_long_key_stays_readable_at_its_beginning_and_ends_in_a_digest(charge):
    task = charge("order_id")
    one, other = key_of(task, "x" * 5000 + "1"), key_of(task, "x" * 5000 + "2")

    assert one != other
    assert len(one) == len(other) == LONGEST
    assert one.startswith('taskkit:once:shop.charge:{"order_id":"xxxx')


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)
NAMES = st.text(min_size=1, max_size=300)


@given(NAMES, VALUES, NAMES, VALUES)
def test_keys_are_the_same_only_for_the_same_task_and_value(name, value, other_name, other_value):
    same = name == other_name and repr(_sorted(value)) == repr(_sorted(other_value))

    assert (key_text("once", name, value) == key_text("once", other_name, other_value)) is same


@given(NAMES, NAMES)
def test_a_name_can_not_be_mistaken_for_a_value(name, text):
    assert key_text("once", f"{name}:{text}", {}) != key_text("once", name, text)
    assert key_text("once", f'{name}:"{text}"', text) != key_text("once", name, f'{text}":"{text}')


@given(NAMES, VALUES)
def test_every_cache_takes_a_key(name, value):
    key = key_text("once", name, value)

    assert len(key) <= LONGEST
    assert all(33 <= ord(character) <= 126 for character in key)


def _sorted(value):
    if isinstance(value, dict):
        return {"dict": sorted((key, repr(_sorted(item))) for key, item in value.items())}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
