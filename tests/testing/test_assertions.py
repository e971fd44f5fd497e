"""Assertions say what did happen."""

from datetime import timedelta

import pytest

from django_taskkit.base_tasks import BaseTaskWithRetry

pytestmark = pytest.mark.django_db


@pytest.fixture
def send(app):
    @app.task(name="mail.send", base=BaseTaskWithRetry, retry_jitter=False, max_retries=1)
    def send(to, *, subject=""):
        return to

    return send


def message_of(claim, *args, **kwargs):
    with pytest.raises(AssertionError) as caught:
        claim(*args, **kwargs)
    return str(caught.value)


def test_nothing_happened_to_nobody(tasks, send):
    tasks.assert_not_sent(send)
    tasks.assert_no_dead_letters()
    tasks.assert_nothing_left()
    tasks.assert_retried(send, times=0)
    tasks.assert_ran(send, times=0)


def test_what_was_sent_is_told_by_task_arguments_queue_and_delay(tasks, send):
    send.apply_async(("anna",), {"subject": "hello"}, queue="mail", countdown=60)

    (sent,) = tasks.assert_sent(send, args=["anna"], kwargs={"subject": "hello"}, queue="mail", delay=60, times=1)
    assert sent.eta == tasks.now + timedelta(minutes=1)
    assert message_of(tasks.assert_sent, send, args=["berta"]) == (
        "mail.send sent with args=['berta']: expected at least once, but it was never. Sent were:\n"
        "  mail.send args=('anna',) kwargs={'subject': 'hello'} queue='mail' delay=60"
    )
    assert "but it was once" in message_of(tasks.assert_not_sent, send)
    assert "queue='other'" in message_of(tasks.assert_sent, send, queue="other")
    assert "delay=61" in message_of(tasks.assert_sent, send, delay=61)


def test_retries_are_no_second_sending(tasks, send):
    tasks.fail_times(send, 1)
    send.delay("anna")
    tasks.advance_retries()

    tasks.assert_sent(send, times=1)


def test_retries_are_told_by_number_delay_and_exception(tasks, send):
    tasks.fail_times(send, 1, TimeoutError("slow"))
    result = send.delay("anna")
    tasks.run()

    (retry,) = tasks.assert_retried(send, times=1, delay_between=(1, 1), exception=OSError)
    assert (retry.id, retry.attempt, retry.delay) == (result.id, 1, 1)
    line = f"Retries were:\n  mail.send[{result.id}] after run 1, in 1 s: TimeoutError('slow')"
    assert message_of(tasks.assert_retried, send, times=2) == (
        f"mail.send retried: expected 2 times, but it was once. {line}"
    )
    assert message_of(tasks.assert_retried, send, delay_between=(2, 4)) == (
        f"mail.send was retried 1 s after run 1, which is not between 2 and 4 s. {line}"
    )
    assert message_of(tasks.assert_retried, send, exception=KeyError) == (
        f"mail.send was retried because of TimeoutError('slow') in run 1, not KeyError. {line}"
    )


def test_the_dead_are_told_by_reason_and_exception(tasks, send):
    tasks.fail_times(send, 2, TimeoutError("slow"))
    result = send.delay("anna")
    tasks.advance_retries()

    letter = tasks.assert_dead(send, reason="retries_exhausted", exception="TimeoutError")
    assert letter.task_id == result.id
    line = f"mail.send[{result.id}] retries_exhausted after 2 runs: TimeoutError: slow"
    assert message_of(tasks.assert_dead, send, reason="permanent") == (
        f"mail.send is dead by reason 'retries_exhausted', not 'permanent':\n  {line}"
    )
    assert message_of(tasks.assert_dead, send, exception="Error").startswith("mail.send is dead by TimeoutError, not")
    assert message_of(tasks.assert_no_dead_letters) == f"messages died. Dead letters are:\n  {line}"


def test_one_that_lives_is_not_dead(tasks, send):
    send.delay("anna")
    tasks.run()

    assert message_of(tasks.assert_dead, send) == (
        "mail.send dead: expected once, but it was never. Dead letters are: none"
    )


def test_runs_are_told_by_state(tasks, send):
    result = send.delay("anna")
    tasks.run()

    tasks.assert_ran(send, times=1, state="succeeded")
    assert message_of(tasks.assert_ran, send, state="failed") == (
        "mail.send ran and failed: expected at least once, but it was never. Runs were:\n"
        f"  mail.send[{result.id}] run 1 succeeded"
    )


def test_what_is_left_is_told_with_place_and_time(tasks, send):
    now = send.delay("anna")
    later = send.apply_async(("berta",), countdown=60)
    with tasks.broker_down():
        kept = send.delay("carla")

    assert message_of(tasks.assert_nothing_left).splitlines() == [
        "messages are left:",
        f"  mail.send[{now.id}] in 'celery', due now: call run()",
        f"  mail.send[{kept.id}] in the outbox, due now: call run()",
        f"  mail.send[{later.id}] in 'celery', due at {later_time(tasks)}",
    ]


def later_time(tasks):
    return next(left.due for left in tasks.waiting if left.due).strftime("%Y-%m-%d %H:%M:%S")


def test_a_long_list_is_cut(tasks, send):
    for _ in range(25):
        send.delay("anna")

    lines = message_of(tasks.assert_nothing_left).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  and 5 more"
