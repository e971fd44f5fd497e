"""Messages run in the test's own process, when the test says so."""

from datetime import datetime, timedelta, timezone

import pytest
from celery import chain, chord, group, shared_task, signals
from celery.exceptions import Ignore, Reject
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from kombu import Queue
from kombu.common import Broadcast

from django_taskkit.base_tasks import BaseTaskWithRetry, DeadLetterTask
from django_taskkit.dlq import requeue
from django_taskkit.exceptions import TaskkitError
from django_taskkit.testing import EndlessError, NotReadyError, inline_worker

pytestmark = pytest.mark.django_db


def test_a_message_runs_when_the_test_says_so(tasks, add):
    result = add.delay(2, 3)

    assert result.state == "PENDING"
    (ran,) = tasks.run()
    assert (ran.task, ran.id, ran.attempt, ran.state, ran.result) == ("shop.add", result.id, 1, "succeeded", 5)
    assert result.get() == 5
    tasks.assert_nothing_left()


def test_the_signals_of_a_message_are_sent_as_in_a_worker(tasks, add):
    heard = []

    def hear(signal=None, **kwargs):
        heard.append(signal.name)

    names = ["task_received", "task_prerun", "task_success", "task_postrun"]
    for name in names:
        getattr(signals, name).connect(hear)
    try:
        add.delay(2, 3)
        tasks.run()
    finally:
        for name in names:
            getattr(signals, name).disconnect(hear)

    assert heard == names


def test_messages_run_one_at_a_time(tasks, add):
    add.delay(1, 1)
    add.delay(2, 2)

    assert tasks.run_next().result == 2
    assert tasks.run_next().result == 4
    assert tasks.run_next() is None


def test_arguments_are_serialised_as_on_the_way_to_a_worker(tasks, app):
    seen = []

    @app.task(name="shop.see")
    def see(value):
        seen.append(value)

    see.delay((1, 2))
    tasks.run()

    assert seen == [[1, 2]]


@pytest.mark.parametrize("base", [None, DeadLetterTask, BaseTaskWithRetry])
def test_a_failure_is_a_dead_letter_as_in_a_worker(tasks, app, base):
    options = {"base": base, "max_retries": 0} if base else {}

    @app.task(name="shop.fail", **options)
    def fail():
        raise ValueError("no stock")

    result = fail.delay()
    (ran,) = tasks.run()

    assert ran.state == "failed"
    assert isinstance(ran.exception, ValueError)
    letter = tasks.assert_dead(fail, exception="ValueError")
    assert (letter.task_id, letter.exception_message) == (result.id, "no stock")
    with pytest.raises(ValueError, match="no stock"):
        result.get()


def test_a_shared_task_runs_by_the_app_that_is_current(tasks, app):
    @shared_task(name="shop.shared")
    def shared():
        return "done"

    result = shared.delay()
    tasks.run()

    assert result.get() == "done"


def test_a_chain_a_group_and_a_chord_run_to_their_end(tasks, add, app):
    @app.task(name="shop.total")
    def total(numbers):
        return sum(numbers)

    chained = chain(add.s(1, 1), add.s(10)).delay()
    grouped = group(add.s(1, 1), add.s(2, 2)).delay()
    chorded = chord([add.s(1, 1), add.s(2, 2)], total.s()).delay()
    tasks.run()

    assert chained.get() == 12
    assert grouped.get() == [2, 4]
    assert chorded.get() == 6
    tasks.assert_nothing_left()


def test_a_chord_whose_member_dies_fails_as_in_a_worker(tasks, add, app):
    @app.task(name="shop.total")
    def total(numbers):
        return sum(numbers)

    tasks.fail_times(add, 1, ValueError("no"))
    chord([add.s(1, 1), add.s(2, 2)], total.s()).delay()
    tasks.run()

    tasks.assert_dead(add)
    assert [ran.task for ran in tasks.ran] == ["shop.add", "shop.add"]


def test_a_chord_that_is_held_goes_on_when_its_member_is_requeued(tasks, add, app):
    @app.task(name="shop.total")
    def total(numbers):
        return sum(numbers)

    add.hold = True
    tasks.fail_times(add, 1, ValueError("no"))
    result = chord([add.s(1, 1), add.s(2, 2)], total.s()).delay()
    tasks.run()
    assert tasks.assert_dead(add).status == "held"

    requeue(tasks.dead_letters)
    tasks.run()

    assert result.get() == 6


def test_a_requeued_dead_letter_recovers(tasks, add):
    tasks.fail_times(add, 1, ValueError("no"))
    add.delay(1, 1)
    tasks.run()

    requeue([tasks.assert_dead(add)])
    tasks.run()

    assert [letter.status for letter in tasks.dead_letters] == ["recovered"]


def test_a_countdown_waits_for_its_time(tasks, add):
    add.apply_async((1, 1), countdown=90)
    add.apply_async((2, 2), eta=tasks.now + timedelta(minutes=1))

    assert tasks.run() == []
    assert [left.due for left in tasks.waiting] == [tasks.now + timedelta(seconds=s) for s in (60, 90)]
    assert [ran.result for ran in tasks.advance(60)] == [4]
    assert [ran.result for ran in tasks.advance(timedelta(seconds=30))] == [2]


def test_what_becomes_due_runs_in_order_and_at_its_time(tasks, app):
    times = []
    start = tasks.now

    @app.task(name="shop.tick")
    def tick(more):
        times.append((datetime.now(timezone.utc) - start).total_seconds())
        if more:
            tick.apply_async((more - 1,), countdown=10)

    tick.apply_async((0,), countdown=15)
    tick.delay(2)
    tasks.advance(60)

    assert times == [0, 10, 15, 20]
    assert tasks.now == start + timedelta(seconds=60)


def test_an_expired_message_is_a_dead_letter(tasks, add):
    add.apply_async((1, 1), countdown=60, expires=30)
    tasks.advance(60)

    assert [ran.state for ran in tasks.ran] == ["revoked"]
    tasks.assert_dead(add, reason="expired")


def test_time_does_not_pass_backwards(tasks):
    with pytest.raises(ValueError, match="-1"):
        tasks.advance(-1)


def test_messages_of_several_queues_run_in_the_order_of_their_arrival(tasks, add):
    for number, queue in enumerate(["mail", "reports", "mail"]):
        add.apply_async((number, 0), queue=queue)

    assert [sent.queue for sent in tasks.sent] == ["mail", "reports", "mail"]
    assert [ran.result for ran in tasks.run()] == [0, 1, 2]


@pytest.mark.parametrize(
    ("order", "results"), [("highest_first", [9, 5, 0]), ("lowest_first", [0, 5, 9]), ("none", [5, 9, 0])]
)
def test_priorities_decide_within_a_queue(app, add, order, results):
    with inline_worker(priority_order=order) as tasks:
        for priority in (5, 9, 0):
            add.apply_async((priority, 0), priority=priority)

        assert [ran.result for ran in tasks.run()] == results


def test_priorities_mean_what_they_mean_to_the_projects_broker(app, add):
    app.conf.broker_url = "redis://127.0.0.1:1/0"
    with inline_worker() as tasks:
        add.apply_async((5, 0), priority=5)
        add.apply_async((0, 0), priority=0)
        assert [ran.result for ran in tasks.run()] == [0, 5]

    app.conf.update(
        broker_url="amqp://127.0.0.1:1//",
        task_queues=[Queue("ranked", queue_arguments={"x-max-priority": 10}), Queue("plain")],
        task_default_queue="ranked",
    )
    app.amqp.queues = app.amqp.Queues(app.conf.task_queues)
    with inline_worker() as tasks:
        for queue in ("ranked", "plain"):
            add.apply_async((0, 0), priority=0, queue=queue)
            add.apply_async((5, 0), priority=5, queue=queue)
        assert [ran.result for ran in tasks.run()] == [5, 0, 0, 5]


def test_delay_on_commit_sends_when_the_hooks_are_called(tasks, add, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        add.delay_on_commit(1, 1)
        tasks.assert_not_sent(add)

    tasks.assert_sent(add, (1, 1), times=1)


def test_what_a_task_does_on_commit_is_done_when_it_ends(tasks, add, app):
    @app.task(name="shop.order")
    def order():
        with transaction.atomic():
            User.objects.create(username="anna")
            add.delay_on_commit(1, 1)
            tasks.assert_not_sent(add)

    order.delay()
    tasks.run()

    tasks.assert_ran(add, times=1)


def test_a_tasks_hook_for_a_commit_that_never_comes_is_not_called(tasks, add, app):
    @app.task(name="shop.order")
    def order():
        with transaction.atomic():
            add.delay_on_commit(1, 1)
            raise ValueError

    order.delay()
    tasks.run()

    tasks.assert_not_sent(add)


def test_a_hook_that_fails_fails_its_task_unless_it_is_robust(tasks, app):
    def hook():
        raise KeyError("hook")

    @app.task(name="shop.order")
    def order(robust):
        with transaction.atomic():
            transaction.on_commit(hook, robust=robust)

    order.delay(True)
    order.delay(False)
    tasks.run()

    assert [ran.state for ran in tasks.ran] == ["succeeded", "failed"]
    tasks.assert_dead(order, exception="KeyError")


def test_what_hooks_the_test_has_registered_are_left_to_the_test(tasks, add, django_capture_on_commit_callbacks):
    called = []
    with django_capture_on_commit_callbacks(execute=True):
        transaction.on_commit(lambda: called.append("test"))
        add.delay(1, 1)
        tasks.run()
        assert called == []

    assert called == ["test"]


def test_a_task_may_open_a_durable_transaction_as_in_a_worker(tasks, app):
    @app.task(name="shop.durable")
    def durable():
        with transaction.atomic(durable=True):
            User.objects.create(username="anna")

    with transaction.atomic():
        durable.delay()
        tasks.run()

    tasks.assert_ran(durable, state="succeeded")


def test_an_error_of_the_database_in_a_task_leaves_the_tests_transaction_usable(tasks, app):
    User.objects.create(username="anna")

    @app.task(name="shop.twice")
    def twice():
        User.objects.create(username="anna")

    @app.task(name="shop.raw")
    def raw():
        with connection.cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")

    twice.delay()
    raw.delay()
    tasks.run()

    tasks.assert_dead(twice, exception="IntegrityError")
    tasks.assert_dead(raw, exception="OperationalError" if connection.vendor == "sqlite" else None)
    assert User.objects.count() == 1


def test_what_a_task_wrote_before_it_failed_stays_as_in_a_worker(tasks, app):
    @app.task(name="shop.fail")
    def fail():
        User.objects.create(username="anna")
        raise IntegrityError

    with transaction.atomic():
        User.objects.create(username="berta")
        fail.delay()
        tasks.run()

    assert User.objects.count() == 2
    tasks.assert_dead(fail)


def test_a_result_that_nothing_brings_is_not_waited_for(tasks, add):
    with pytest.raises(NotReadyError, match=r"call tasks.run\(\) first"):
        add.delay(1, 1).get()
    with pytest.raises(NotReadyError):
        group(add.s(1, 1), add.s(2, 2)).delay().get()


def test_a_task_can_not_wait_for_another_as_in_a_worker(tasks, add, app):
    @app.task(name="shop.wait")
    def wait():
        return add.delay(1, 1).get()

    wait.delay()
    tasks.run()

    assert "Never call result.get()" in tasks.assert_dead(wait).exception_message


def test_a_task_can_not_run_others(tasks, add, app):
    seen = []

    @app.task(name="shop.run")
    def run():
        try:
            tasks.run()
        except TaskkitError as exc:
            seen.append(str(exc))

    run.delay()
    tasks.run()

    assert seen == ["messages are being run already; a task can't run others, it can only send them"]


def test_ignored_and_rejected_runs_are_told_apart(tasks, app):
    @app.task(name="shop.ignore")
    def ignore():
        raise Ignore

    @app.task(name="shop.reject", acks_late=True)
    def reject():
        raise Reject("no", requeue=False)

    ignore.delay()
    reject.delay()

    assert [ran.state for ran in tasks.run()] == ["ignored", "rejected"]
    tasks.assert_dead(reject, reason="rejected")


def test_a_message_that_is_delivered_again_says_so_to_its_task(tasks, app):
    seen = []

    @app.task(name="shop.again", bind=True, acks_late=True, reject_on_worker_lost=True)
    def again(self):
        seen.append(self.request.delivery_info["redelivered"])
        if len(seen) == 1:
            raise Reject("not now", requeue=True)

    again.delay()
    assert [ran.state for ran in tasks.run()] == ["rejected", "succeeded"]

    tasks.kill_worker(again)
    again.delay()
    tasks.run()

    assert seen == [False, True, True]


def test_a_message_for_another_project_stays_where_it_is(tasks, app):
    app.send_task("elsewhere.task", (1,), queue="elsewhere")

    assert tasks.run() == []
    tasks.assert_sent("elsewhere.task", (1,), queue="elsewhere")
    with pytest.raises(AssertionError, match="for which this project has no task"):
        tasks.assert_nothing_left()


def test_the_first_protocol_of_celery_is_understood(app, add):
    app.conf.task_protocol = 1
    with inline_worker() as tasks:
        add.apply_async((1, 1), countdown=60)
        assert tasks.run() == []
        assert [ran.result for ran in tasks.advance(60)] == [2]
        tasks.assert_sent(add, (1, 1), delay=60)


def test_messages_without_an_end_are_stopped(app):
    @app.task(name="shop.again")
    def again():
        again.delay()

    with inline_worker(limit=7) as tasks:
        again.delay()
        with pytest.raises(EndlessError, match=r"7 messages ran .* 7 of them of task 'shop.again'.*limit=70"):
            tasks.run()


def test_what_a_test_fails_with_inside_of_a_task_fails_the_test(tasks, app):
    @app.task(name="shop.failing")
    def failing():
        pytest.fail("the test's own")

    failing.delay()

    with pytest.raises(pytest.fail.Exception, match="the test's own"):
        tasks.run()


def test_a_task_that_exits_is_lost_as_in_a_worker(tasks, app):
    @app.task(name="shop.leave")
    def leave():
        raise SystemExit(1)

    leave.delay()
    tasks.run()

    tasks.assert_dead(leave, reason="worker_lost")


def test_a_revoked_message_is_a_dead_letter(tasks, add):
    result = add.delay(1, 1)
    result.revoke()

    assert [ran.state for ran in tasks.run()] == ["revoked"]
    tasks.assert_dead(add, reason="revoked")


def test_an_eta_without_a_time_zone_is_in_that_of_the_app(tasks, add):
    add.apply_async((1, 1), eta=tasks.now.replace(tzinfo=None) + timedelta(minutes=1))

    tasks.assert_sent(add, delay=60)
    assert tasks.run() == []
    assert len(tasks.advance(60)) == 1


def test_a_broadcast_reaches_every_queue_that_is_bound(app, add):
    app.conf.task_queues = [Broadcast("all", queue="first"), Broadcast("all", queue="second"), Queue("celery")]
    app.amqp.queues = app.amqp.Queues(app.conf.task_queues)
    with inline_worker() as tasks:
        with app.connection_for_write() as connection:
            for name in ("first", "second"):
                app.amqp.queues[name](connection).declare()
        add.apply_async((1, 1), exchange="all", exchange_type="fanout", routing_key="any")

        assert [left.queue for left in tasks.waiting] == ["first", "second"]
        assert len(tasks.run()) == 2


def test_messages_can_be_purged(tasks, add, app):
    add.delay(1, 1)

    assert app.control.purge() == 1
    assert tasks.run() == []


def test_an_order_of_priorities_that_does_not_exist_is_refused(app):
    with pytest.raises(ValueError, match="priority_order='highest' makes no sense; give one of as_broker"):
        inline_worker(priority_order="highest").__enter__()
    with inline_worker():
        pass
