"""What the shop does. Views, the admin and commands call this and nothing below it."""

from django.db import transaction

from orders.models import Order
from orders.tasks import book_shipment, send_receipt


def place_order(order: Order) -> Order:
    """Save a new order and have its receipt sent and its parcel booked.

    The tasks are written in the transaction of the order, and the relay sends them when it is through: both are
    there or neither is, also if this process is killed at the commit or the broker is down.
    """
    with transaction.atomic():
        order.save(force_insert=True)
        send_receipt.apply_async((order.pk,), outbox=True)
        book_shipment.apply_async((order.pk,), outbox=True)
    return order
