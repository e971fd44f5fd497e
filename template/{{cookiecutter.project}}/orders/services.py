"""What the shop does. Views, the admin and commands call this and nothing below it."""

from django.db import transaction

from orders.models import Order
from orders.tasks import book_shipment, send_receipt


def place_order(order: Order) -> Order:
    """Save a new order and have its receipt sent and its parcel booked.

    The tasks are sent when the transaction is through: sent earlier, a fast worker would look for an order
    that is not there yet, and after a rollback for one that never will be.
    """
    with transaction.atomic():
        order.save(force_insert=True)
        send_receipt.delay_on_commit(order.pk)
        book_shipment.delay_on_commit(order.pk)
    return order
