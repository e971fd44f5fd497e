"""The promise, on the project's own settings: what can't be done waits, and is put back from the admin."""

from django.core import mail
from django_taskkit.models import DeadLetter


def test_a_receipt_without_an_address_dies_and_recovers_once_there_is_one(worker, order_from, admin_client, until):
    order = order_from(email="")
    dead = until(DeadLetter.objects.filter(task_name="orders.tasks.send_receipt").first)
    assert (dead.status, dead.attempts) == ("dead", 1)
    assert "no e-mail address" in dead.exception_message

    order.customer.email = "ines@example.org"
    order.customer.save()
    admin_client.post(f"/admin/django_taskkit/deadletter/{dead.pk}/requeue/", {"confirmed": "1"})

    until(DeadLetter.objects.filter(pk=dead.pk, status="recovered").exists)
    assert [message.to for message in mail.outbox] == [["ines@example.org"]]


def test_a_parcel_nobody_can_deliver_dies_after_its_retries(worker, order_from, until):
    order_from(postcode="0013")

    dead = until(DeadLetter.objects.filter(task_name="orders.tasks.book_shipment").first)

    assert (dead.reason, dead.attempts) == ("retries_exhausted", 4)
    assert dead.exception_class.endswith("UnknownPostcodeError")
