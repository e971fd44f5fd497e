"""The shop's tasks. Each may run twice, as a worker can die at any line, so each looks first what is done."""

from datetime import timedelta
from typing import Any

from celery import shared_task
from django.conf import settings
from django.core.mail import send_mail
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone
from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.models import DeadLetter
from django_taskkit.results import result_cache

from orders import carrier, exports, reports
from orders.models import Order, Shipment
from orders.reviews import invite_later


class NoEmailAddressError(Exception):
    """A customer, or the owner, can't be written to until somebody fills in the address."""


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
@shared_task(bind=True, base=BaseTaskWithRetry, autoretry_for=(carrier.CarrierError,), max_retries=3, retry_backoff=1)
def book_shipment(self: BaseTaskWithRetry, order_id: int) -> None:
    order = Order.objects.select_related("customer").get(pk=order_id)
    if Shipment.objects.filter(order=order).exists():
        return
    # The carrier gives the same number for the same reference, so asking twice books once.
    number = carrier.book(reference=f"ORDER-{order.pk}", postcode=order.customer.postcode)
    with transaction.atomic():
        _, is_new = Shipment.objects.get_or_create(
            order=order, defaults={"tracking_number": number, "attempts": self.request.retries + 1}
        )
        if is_new:
            invite_later(order)


def address_of_owner() -> str:
    # Django sends a mail to "" to nobody, and all seems well.
    if not settings.DIGEST_TO:
        raise NoEmailAddressError("Say in DIGEST_TO who gets this mail, restart the workers, and requeue this.")
    return str(settings.DIGEST_TO)


@shared_task(base=BaseTaskWithRetry, autoretry_for=(OSError,))
def nightly_digest() -> None:
    """Tell the owner what happened in the last 24 hours and what waits for a person. Sent by beat."""
    orders = Order.objects.filter(placed_at__gte=timezone.now() - timedelta(days=1))
    lines = [
        f"Orders placed: {orders.count()}",
        f"without a receipt: {orders.filter(receipt_sent_at=None).count()}",
        f"without a shipment: {orders.filter(shipment=None).count()}",
        f"Dead letters that wait for you: {DeadLetter.objects.filter(status__in=['dead', 'held']).count()}",
    ]
    send_mail(
        subject=f"{settings.PROJECT_NAME}: the last 24 hours",
        message="\n".join(lines) + "\n",
        from_email=None,
        recipient_list=[address_of_owner()],
    )


# Made when somebody opens the page and kept for an hour, or until an order changes (orders/apps.py). After the
# hour, the old one is shown while a new one is made. A shop with an order every second goes without the tag, else
# no report would be new when it is done.
@result_cache(timeout=3600, stale_for=24 * 3600, tags=["orders"], poll_every=1)
@shared_task(bind=True, base=BaseTaskWithRetry)
def sales_report(self: BaseTaskWithRetry, year: int) -> dict[str, Any]:
    return reports.sales(year, self.set_progress)


# Without the tag: an export is what was there when somebody asked for it, and the page says when that was. What
# is cached is where the file is, not the file: no cache is made for megabytes, and each look would read them all.
# It may take longer than other tasks: the lane "reports" in the settings says how long. Killed with its worker, it
# is started anew by the next one.
@result_cache(timeout=exports.OFFERED_FOR, poll_every=1)
@shared_task(bind=True, base=BaseTaskWithRetry, autoretry_for=(OSError,))
def export_orders(self: BaseTaskWithRetry, year: int, kind: str) -> dict[str, Any]:
    return exports.make_file(year, kind, self.set_progress)


@shared_task(base=BaseTaskWithRetry)
def delete_old_exports() -> None:
    """Delete files that no page offers any more. Sent by beat."""
    exports.delete_old_files()


@shared_task(base=BaseTaskWithRetry)
def clear_sessions() -> None:
    """Delete sessions that have expired. Sent by beat. Without: the table grows with every visit for ever."""
    call_command("clearsessions")
