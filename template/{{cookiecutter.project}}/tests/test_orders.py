from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.core import mail
from django.db import transaction
from django.utils import timezone
from django_taskkit.models import OutboxMessage

from orders import carrier
from orders.models import Order, Shipment
from orders.tasks import NoEmailAddressError, clear_sessions, nightly_digest, send_receipt

pytestmark = pytest.mark.django_db


def test_a_receipt_names_what_was_bought(order_from):
    order = order_from()

    send_receipt(order.pk)

    assert mail.outbox[0].to == ["ines@example.org"]
    assert "a teapot for 34.90" in mail.outbox[0].body


def test_a_receipt_that_was_sent_is_not_sent_again(order_from):
    order = order_from()

    send_receipt(order.pk)
    send_receipt(order.pk)

    assert len(mail.outbox) == 1


def test_without_an_address_the_error_names_the_remedy(order_from):
    order = order_from(email="")

    with pytest.raises(NoEmailAddressError, match="fill it in in the admin"):
        send_receipt(order.pk)


def test_a_missing_address_is_not_waited_for():
    assert not issubclass(NoEmailAddressError, send_receipt.autoretry_for)
    assert issubclass(ConnectionRefusedError, send_receipt.autoretry_for)


def test_the_carrier_is_busy_twice_and_then_keeps_its_number():
    for _ in range(2):
        with pytest.raises(carrier.CarrierBusyError):
            carrier.book("ORDER-1", "1100")

    assert carrier.book("ORDER-1", "1100") == carrier.book("ORDER-1", "1100") == "TRK-ORDER-1"


def test_the_digest_counts_what_waits(order_from):
    order_from()

    nightly_digest()

    assert "without a receipt: 1" in mail.outbox[0].body
    assert "Dead letters that wait for you: 0" in mail.outbox[0].body


def test_sessions_that_have_expired_are_deleted():
    for key, age in (("old", -1), ("new", 1)):
        Session.objects.create(session_key=key, expire_date=timezone.now() + timedelta(days=age))

    clear_sessions()

    assert Session.objects.get().session_key == "new"


def test_an_order_placed_in_the_admin_leaves_its_tasks_in_the_outbox(admin_client, order_from):
    customer = order_from().customer
    OutboxMessage.objects.all().delete()

    form = {"customer": customer.pk, "item": "two cups", "amount": "18.00"}
    response = admin_client.post("/admin/orders/order/add/", form)

    assert response.status_code == 302
    waiting = OutboxMessage.objects.order_by("pk").values_list("task_name", flat=True)
    assert list(waiting) == ["orders.tasks.send_receipt", "orders.tasks.book_shipment"]


def test_an_order_that_is_rolled_back_takes_its_tasks_along(order_from):
    def place_and_fail():
        with transaction.atomic():
            order_from()
            raise RuntimeError("something else of this transaction failed")

    with pytest.raises(RuntimeError):
        place_and_fail()

    assert not Order.objects.exists()
    assert not OutboxMessage.objects.exists()


def test_a_parcel_is_booked_when_the_carrier_has_time_again(worker, order_from, until):
    order = order_from()

    shipment = until(Shipment.objects.filter(order=order).first)

    assert shipment.attempts == 3
