"""The shop's tasks. Each may run twice, as a worker can die at any line, so each looks first what is done."""

from datetime import timedelta

from celery import shared_task
from django.conf import settings
from django.core.mail import send_mail
from django.utils import timezone
from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.models import DeadLetter

from orders import carrier
from orders.models import Order, Shipment


class NoEmailAddressError(Exception):
    """A customer can't be written to until somebody fills in the address."""


# OSError is what a mail server gives that is down, slow or full (SMTPException is one): worth a retry.
# A missing address is not, as waiting finds none: the task dies at once, and waits as a dead letter.
@shared_task(base=BaseTaskWithRetry, autoretry_for=(OSError,))
def send_receipt(order_id: int) -> None:
    order = Order.objects.select_related("customer").get(pk=order_id)
    if order.receipt_sent_at:
        return
    customer = order.customer
    if not customer.email:
        raise NoEmailAddressError(
            f"{customer.name} (customer {customer.pk}) has no e-mail address for the receipt of {order}: "
            "fill it in in the admin, then requeue this dead letter."
        )
    text = f"Dear {customer.name},\n\nthank you for buying {order.item} for {order.amount}.\n"
    send_mail(
        subject=f"Your receipt for {order}",
        message=f"{text}\n{settings.PROJECT_NAME}\n",
        from_email=None,
        recipient_list=[customer.email],
    )
    # A crash between these two lines sends the receipt once more; the other way round it might never be sent.
    Order.objects.filter(pk=order.pk).update(receipt_sent_at=timezone.now())


# Four runs, with about 1, 2 and 4 seconds between them: who waits for a parcel wants to know soon.
@shared_task(
    bind=True, base=BaseTaskWithRetry, autoretry_for=(carrier.CarrierError,), max_retries=3, retry_backoff=1
)
def book_shipment(self: BaseTaskWithRetry, order_id: int) -> None:
    order = Order.objects.select_related("customer").get(pk=order_id)
    if Shipment.objects.filter(order=order).exists():
        return
    # The carrier gives the same number for the same reference, so asking twice books once.
    number = carrier.book(reference=f"ORDER-{order.pk}", postcode=order.customer.postcode)
    Shipment.objects.get_or_create(
        order=order, defaults={"tracking_number": number, "attempts": self.request.retries + 1}
    )


@shared_task(base=BaseTaskWithRetry, autoretry_for=(OSError,))
def daily_digest() -> None:
    """Tell the owner what happened in the last 24 hours and what waits for a person. Sent by beat."""
    orders = Order.objects.filter(placed_at__gte=timezone.now() - timedelta(days=1))
    lines = [
        f"Orders placed: {orders.count()}",
        f"without a receipt: {orders.filter(receipt_sent_at=None).count()}",
        f"without a shipment: {orders.filter(shipment=None).count()}",
        f"Dead letters that wait for you: {DeadLetter.objects.filter(status='dead').count()}",
    ]
    send_mail(
        subject=f"{settings.PROJECT_NAME}: the last 24 hours",
        message="\n".join(lines) + "\n",
        from_email=None,
        recipient_list=[settings.DIGEST_TO],
    )
