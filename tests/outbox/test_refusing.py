"""Calls whose arguments should not travel are refused to whoever makes them, and nothing is lost in a worker."""

import pytest
from celery import beat, chain, chord, group, signals
from celery.schedules import crontab
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy, override
from kombu.exceptions import EncodeError
from kombu.utils import json as kombu_json

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.exceptions import ConfigurationError, UnsafeArgumentError
from django_taskkit.models import DeadLetter, OutboxMessage

pytestmark = pytest.mark.django_db


@pytest.fixture
def order():
    return User.objects.create(username="ada")


@pytest.fixture
def ran():
    """What the tasks that were run had as arguments."""
    return []


@pytest.fixture
def add(station, ran):
    @station.app.task(name="t.add")
    def add(*numbers, **named):
        ran.append((numbers, named))

    return add


@pytest.fixture
def pay(station, ran):
    @station.app.task(name="t.pay")
    def pay(order=None, note=""):
        ran.append(order)

    return pay


def pickling(station):
    station.app.conf.update(task_serializer="pickle", result_serializer="pickle")


WAYS = {
    "delay": lambda task, order: task.delay(order),
    "apply_async": lambda task, order: task.apply_async((), {"order": order}),
    "a signature": lambda task, order: task.s(order).apply_async(),
    "arguments for a signature": lambda task, order: task.s().delay(order=order),
    "send_task": lambda task, order: task.app.send_task(task.name, (order,)),
    "of an unknown task": lambda task, order: task.app.send_task("t.elsewhere", kwargs={"order": order}),
    "into the outbox": lambda task, order: task.apply_async((order,), outbox=True),
    "a callback": lambda task, order: task.apply_async((1,), link=task.si(order)),
    "a callback's callback": lambda task, order: task.apply_async((1,), link=[task.si(1).on_error(task.si(order))]),
    "an errback": lambda task, order: task.apply_async((1,), link_error=task.si(order)),
    "the end of a chain": lambda task, order: chain(task.si(1), task.si(2), task.si(order)).delay(),
    "a chain in a group in a chain": lambda task, order: (task.si(1) | group(task.si(1), task.si(order))).delay(),
    "the last of a group": lambda task, order: group(task.si(1), task.si(order)).delay(),
    "in the header of a chord": lambda task, order: chord([task.si(1), task.si(order)], task.si(1)).delay(),
    "the body of a chord": lambda task, order: chord([task.si(1)], task.si(order)).delay(),
    "arguments for a group": lambda task, order: group(task.s(), task.s()).delay(order=order),
}


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize(
    ("call", "is_eager"),
    [
        pytest.param(call, is_eager, id=f"{way}, {'eager' if is_eager else 'sent'}")
        for way, call in WAYS.items()
        for is_eager in (False, True)
    ],
)
def test_a_row_is_refused_whatever_way_it_is_sent(station, pay, order, ran, call, is_eager, serializer):
    station.app.conf.update(task_always_eager=is_eager, task_serializer=serializer)

    with pytest.raises(UnsafeArgumentError, match=r"is an instance of the model auth\.User; pass .*\.pk"):
        call(pay, order)

    assert station.waiting() == 0  # no part of a workflow either
    assert ran == []
    assert not OutboxMessage.objects.exists()


def test_the_error_names_the_task_the_argument_and_the_remedy(pay, order):
    with pytest.raises(UnsafeArgumentError) as caught:
        pay.delay(order)

    assert str(caught.value) == (
        "task t.pay: argument 1 (order) is an instance of the model auth.User; "
        "pass order.pk and fetch the row in the task."
    )


def test_the_error_names_the_task_that_would_have_it_and_the_one_that_it_follows(add, pay, order):
    with pytest.raises(UnsafeArgumentError, match=r"^task t\.pay, which follows t\.add: order is an instance"):
        add.apply_async((1,), link=pay.s(order=order))


def test_it_is_a_type_error_as_what_celery_raises_for_a_wrong_call(pay, order):
    with pytest.raises(TypeError):
        pay.delay(order)


def test_no_query_is_made_not_even_for_the_description_in_the_message(add, django_assert_num_queries):
    user = SimpleLazyObject(lambda: User.objects.get())

    with django_assert_num_queries(0):
        for value in (Group.objects.all(), user, [user]):
            with pytest.raises(UnsafeArgumentError):
                add.delay(value)


def test_plain_arguments_are_sent_as_they_were(station, add, ran):
    add.delay(1, [2], text="x")
    chain(add.si(2), group(add.si(3), add.si(4))).delay()
    station.run_all()

    assert ran[0] == ((1, [2]), {"text": "x"})
    assert sorted(numbers for numbers, _ in ran[1:]) == [(2,), (3,), (4,)]


def test_what_the_serializer_does_not_know_is_still_its_own_to_refuse(add):
    with pytest.raises(EncodeError):
        add.delay(object())


def test_a_lazy_text_travels_in_the_language_of_the_caller(station, add, ran):
    with override("de"):
        add.delay(gettext_lazy("Yes"))
    station.run_all()

    assert ran == [(("Ja",), {})]


def test_a_registered_type_is_sent(station, pay, order, ran):
    kombu_json.register_type(User, "user", lambda user: user.pk, lambda pk: f"user {pk}")
    try:
        pay.delay(order)
        station.run_all()
    finally:
        del kombu_json._encoders[User], kombu_json._decoders["user"]

    assert ran == [f"user {order.pk}"]


def by_keys(station, pay):
    """A task that has its own way to send rows: it makes keys of them."""

    class ByKeys(station.app.Task):
        abstract = True

        def apply_async(self, args=None, kwargs=None, **options):
            return super().apply_async([getattr(value, "pk", value) for value in args or ()], kwargs, **options)

    @station.app.task(base=ByKeys, name="t.by_keys")
    def by_keys(*args):
        return pay.run(*args)

    return by_keys


def test_a_task_that_makes_keys_of_rows_by_itself_is_sent_in_a_workflow_too(station, pay, order, ran):
    task = by_keys(station, pay)

    task.delay(order)
    group(task.s(order), task.s(order)).delay()
    station.run_all()

    assert ran == [order.pk] * 3


def test_what_such_a_task_would_never_see_is_refused(station, pay, order):
    task = by_keys(station, pay)

    with pytest.raises(UnsafeArgumentError):  # the worker sends what follows, which is in the message as it is here
        chain(pay.si(1), task.si(order)).delay()

    assert station.waiting() == 0


class TestChoice:
    def test_a_warning_instead_names_the_line_that_makes_the_call(self, station, pay, order, ran, settings, caplog):
        settings.TASKKIT = {"UNSAFE_ARGUMENTS": "warn"}
        pickling(station)

        pay.delay(order)
        station.run_all()

        assert ran == [order]
        (warning,) = [record.getMessage() for record in caplog.records if "auth.User" in record.getMessage()]
        assert "task t.pay: argument 1 (order) is an instance of the model auth.User" in warning
        assert f"(sent by {__file__}:" in warning

    def test_a_workflow_is_warned_of_once_for_each_message(self, station, pay, order, settings, caplog):
        settings.TASKKIT = {"UNSAFE_ARGUMENTS": "warn"}
        pickling(station)

        group(pay.s(order), pay.s(1)).delay()

        assert caplog.text.count("is an instance of the model auth.User") == 1

    def test_in_eager_mode_the_warning_comes_too(self, station, pay, order, settings, caplog):
        settings.TASKKIT = {"UNSAFE_ARGUMENTS": "warn"}
        pickling(station)
        station.app.conf.task_always_eager = True

        pay.delay(order)
        chain(pay.si(order), pay.si(1)).delay()

        assert caplog.text.count("is an instance of the model auth.User") == 2

    def test_nothing_is_said_where_it_is_allowed(self, station, pay, order, ran, settings, caplog):
        settings.TASKKIT = {"UNSAFE_ARGUMENTS": "allow"}
        pickling(station)

        pay.delay(order)
        station.run_all()

        assert ran == [order]
        assert caplog.text == ""

    @pytest.mark.parametrize("setting", ["error", "warn"])
    def test_the_task_says_it_better_than_the_setting(self, station, pay, add, order, ran, settings, caplog, setting):
        settings.TASKKIT = {"UNSAFE_ARGUMENTS": setting}
        pickling(station)
        pay.unsafe_arguments = "allow"

        pay.delay(order)
        add.apply_async((1,), link=pay.si(order))

        assert "auth.User" not in caplog.text

    def test_a_task_can_be_stricter_than_the_setting(self, pay, order, settings):
        settings.TASKKIT = {"UNSAFE_ARGUMENTS": "allow"}
        pay.unsafe_arguments = "error"

        with pytest.raises(UnsafeArgumentError):
            pay.delay(order)

    def test_a_word_that_means_nothing_is_named_with_those_that_do(self, pay, order):
        pay.unsafe_arguments = "refuse"

        with pytest.raises(ConfigurationError, match=r"t\.pay: unsafe_arguments is 'refuse'; give one of 'error'"):
            pay.delay(order)


class TestOnCommit:
    def test_it_is_refused_at_the_call_and_not_at_the_commit(self, pay, order):
        with transaction.atomic():
            with pytest.raises(UnsafeArgumentError):
                pay.delay_on_commit(order)
            with pytest.raises(UnsafeArgumentError):
                pay.apply_async_on_commit((order,))

    @pytest.mark.django_db(transaction=True)
    def test_a_task_that_makes_keys_of_rows_by_itself_is_sent_at_the_commit(self, station, pay, order, ran):
        task = by_keys(station, pay)

        with transaction.atomic():
            task.delay_on_commit(order)
            task.apply_async_on_commit((order,))
        station.run_all()

        assert ran == [order.pk] * 2


class TestWithoutACaller:
    def test_what_beat_sends_is_not_lost(self, station, pay, order, ran, caplog):
        pickling(station)
        scheduler = beat.Scheduler(station.app, schedule={}, lazy=True)
        entry = scheduler.Entry(name="t", task=pay.name, args=(order,), schedule=crontab(), app=station.app)

        scheduler.apply_entry(entry, producer=scheduler.producer)
        station.run_all()

        assert ran == [order]
        assert "argument 1 (order) is an instance of the model auth.User" in caplog.text

    def test_what_a_receiver_of_celerys_signals_sends_is_not_lost_since_celery_swallows_its_errors(
        self, station, pay, order, ran, caplog
    ):
        pickling(station)

        def warm_up(**kwargs):
            pay.delay(order)

        signals.worker_ready.connect(warm_up)
        try:
            signals.worker_ready.send(sender=None)
        finally:
            signals.worker_ready.disconnect(warm_up)
        station.run_all()

        assert ran == [order]
        assert "argument 1 (order) is an instance of the model auth.User" in caplog.text

    def test_a_function_that_is_called_as_one_of_celerys_has_a_caller(self, station, pay, order):
        def on_error():
            pay.delay(order)

        with pytest.raises(UnsafeArgumentError):
            on_error()


class TestInAWorker:
    def test_a_task_that_calls_another_gets_the_error_and_dies_with_it(self, station, pay, order):
        @station.app.task(name="t.calls")
        def calls():
            pay.delay(User.objects.get())

        calls.delay()
        station.run_all()

        letter = DeadLetter.objects.get()
        assert (letter.task_name, letter.exception_class) == (
            "t.calls",
            "django_taskkit.exceptions.UnsafeArgumentError",
        )

    def test_a_retry_with_other_arguments_is_sent_and_a_warning_logged(self, station, order, caplog):
        pickling(station)
        seen = []

        @station.app.task(base=BaseTaskWithRetry, bind=True, name="t.again")
        def again(self, order):
            seen.append(order)
            if len(seen) == 1:
                self.retry(args=(User.objects.get(),), countdown=0)

        again.delay(order.pk)
        station.run_all()

        assert seen == [order.pk, order]
        assert "task t.again: argument 1 (order) is an instance of the model auth.User" in caplog.text
        assert not DeadLetter.objects.exists()

    def test_what_follows_a_task_gets_its_result_and_a_warning_is_logged(self, station, pay, order, ran, caplog):
        pickling(station)

        @station.app.task(name="t.find")
        def find():
            return User.objects.get()

        (find.s() | pay.s()).delay()
        find.apply_async(link=pay.s())
        (find.s() | group(pay.s(), pay.s())).delay()
        station.run_all()

        assert ran == [order] * 4
        assert caplog.text.count("is an instance of the model auth.User") == 4
        assert not DeadLetter.objects.exists()

    def test_a_chord_gets_the_results_of_its_members(self, station, ran, caplog):
        pickling(station)
        User.objects.create(username="ada")

        @station.app.task(name="t.find")
        def find():
            return User.objects.get()

        @station.app.task(name="t.collect")
        def collect(found):
            ran.append([user.username for user in found])

        chord([find.s(), find.s()], collect.s()).delay()
        station.run_all()

        assert ran == [["ada", "ada"]]
        assert "t.collect" in caplog.text

    def test_what_a_handler_of_a_failure_sends_is_not_refused_since_nobody_would_get_the_error(
        self, station, pay, order, ran, caplog
    ):
        pickling(station)

        class Telling(BaseTaskWithRetry):
            abstract = True

            def on_failure(self, *args):
                pay.delay(User.objects.get())

        @station.app.task(base=Telling, name="t.fails", max_retries=0)
        def fails():
            raise ValueError("no")

        fails.delay()
        station.run_all()

        assert ran == [order]
        assert DeadLetter.objects.get().exception_message == "no"

    def test_a_call_in_eager_mode_inside_a_task_has_a_caller(self, station, pay, order):
        station.app.conf.task_always_eager = True

        @station.app.task(name="t.calls")
        def calls():
            pay.delay(User.objects.get())

        assert isinstance(calls.delay().result, UnsafeArgumentError)
