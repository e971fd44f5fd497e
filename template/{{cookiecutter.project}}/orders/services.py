"""What the shop does. Views, the admin and commands call this and nothing below it."""

from celery import uuid
from django.conf import settings
from django.db import transaction

from orders.geocoding import locate_customer
from orders.models import Customer, Order, Product
from orders.photos import delete_photo, make_thumbnails
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


def save_customer(customer: Customer) -> Customer:
    """Save a customer and, if the postcode is another one, have it looked up."""
    with transaction.atomic():
        before = Customer.objects.select_for_update().filter(pk=customer.pk).first()
        has_moved = before is None or before.postcode != customer.postcode
        # Of the place counts what the database says: a task may have written it since this customer was read.
        customer.latitude = None if has_moved or before is None else before.latitude
        customer.longitude = None if has_moved or before is None else before.longitude
        customer.save()
        if has_moved and settings.GEOCODER_URL:
            # After the commit is soon enough, and not in the outbox: a place that nobody looked up is no loss.
            locate_customer.delay_on_commit(customer.pk)
    return customer


def save_product(product: Product, *, has_new_photo: bool) -> Product:
    """Save a product and, if the photo is a new one, have its thumbnails made; until then the old ones are shown."""
    with transaction.atomic():
        before = Product.objects.select_for_update().filter(pk=product.pk).first()
        if before:  # what tasks, and others, have written since this product was read
            product.published = before.published
            if not has_new_photo:
                product.photo, product.thumbnails_task = before.photo, before.thumbnails_task
        if has_new_photo:
            product.thumbnails_task = uuid()
        product.save()
        if has_new_photo:
            make_thumbnails.apply_async((product.pk, product.photo.name), task_id=product.thumbnails_task, outbox=True)
    return product


def forget_product(product: Product) -> None:
    """Delete a product with its files."""
    with transaction.atomic():
        product.delete()
        for photo in {product.photo.name, product.published} - {""}:
            delete_photo.apply_async((photo,), outbox=True)
