"""The task of Django's own kind: when it is sent, what becomes of it, and how it comes back from the dead."""

from datetime import timedelta

from django.core import mail
{%- if cookiecutter.django == "5.2" %}
from django.utils import timezone
from django_taskkit.models import DeadLetter, OutboxMessage
from django_tasks import TaskResultStatus, task_backends
{%- else %}
from django.tasks import TaskResultStatus, task_backends
from django.utils import timezone
from django_taskkit.models import DeadLetter, OutboxMessage
{%- endif %}

from orders.models import Shipment
from orders.reviews import WAIT, invite_later, invite_to_review


def test_who_gets_a_parcel_is_invited_three_days_later(worker, order_from, until):
    until(lambda: True)  # has a relay at work, without which nothing long would be left to it
    order = order_from()
    until(Shipment.objects.filter(order=order).first)

    waiting = OutboxMessage.objects.get(task_name="orders.reviews.invite_to_review")

    assert abs(waiting.due_at - timezone.now() - WAIT) < timedelta(minutes=5)


def test_an_invitation_is_a_mail_and_a_result_that_can_be_looked_up(worker, order_from, until):
    order = order_from()

    result = invite_to_review.enqueue(order.pk)
    until(lambda: result.refresh() or result.is_finished)

    assert (result.status, result.return_value) == (TaskResultStatus.SUCCESSFUL, True)
    assert f"How do you like {order.item}?" in [message.subject for message in mail.outbox]


def test_nobody_is_invited_twice(db, order_from):
    order = order_from()

    assert invite_to_review.call(order.pk) is True
    assert invite_to_review.call(order.pk) is False


def test_one_that_died_is_requeued_under_the_same_result(worker, order_from, until, admin_client):
    order = order_from()
    pk = order.pk
    result = invite_to_review.enqueue(pk + 1)
    dead = until(DeadLetter.objects.filter(task_id=result.id).first)
    until(lambda: result.refresh() or result.status == TaskResultStatus.FAILED)

    order.pk, order.review_asked_at = pk + 1, None
    order.save(force_insert=True)  # what was missing is there now
    admin_client.post(f"/admin/django_taskkit/deadletter/{dead.pk}/requeue/", {"confirmed": "1"})

    until(lambda: result.refresh() or result.status == TaskResultStatus.SUCCESSFUL)
    until(DeadLetter.objects.filter(pk=dead.pk, status="recovered").exists)


def test_its_result_is_found_by_its_id(db, order_from):
    task_id = invite_later(order_from())

    assert task_backends["default"].get_result(task_id).status == TaskResultStatus.READY
