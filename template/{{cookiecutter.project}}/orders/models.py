import secrets
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from pathlib import PurePosixPath
from typing import Self

from django.core.validators import FileExtensionValidator
from django.db import models
from django.utils import timezone


class Customer(models.Model):
    name = models.CharField(max_length=100)
    email = models.EmailField(blank=True, help_text="May be unknown, as when somebody orders by telephone.")
    postcode = models.CharField(max_length=10)
    # Where the postcode is, as orders/geocoding.py has found out; empty until then.
    latitude = models.DecimalField(max_digits=9, decimal_places=6, null=True, blank=True, editable=False)
    longitude = models.DecimalField(max_digits=9, decimal_places=6, null=True, blank=True, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class OrderQuerySet(models.QuerySet["Order"]):
    def of_year(self, year: int) -> Self:
        return self.filter(placed_at__year=year)

    def of_month(self, month: date) -> Self:
        """Return what was placed in the month of this day, by the clock of the shop."""
        first = month.replace(day=1)
        # 31 days after a first is in the next month, always. Bounds, not `__month`: for that, MariaDB needs its
        # tables of time zones filled, and no index helps.
        following = date.fromordinal(first.toordinal() + 31).replace(day=1)
        return self.filter(placed_at__gte=_midnight(first), placed_at__lt=_midnight(following))

    def in_batches(self, size: int = 500) -> Iterator[Sequence["Order"]]:
        """Yield all orders, some at a time, as they were placed.

        Not `iterator()`, whose query stays open while the caller works on what it gives: on SQLite, as soon as
        another process has written, this connection could write no more, not even the progress of a task. Each batch
        begins where the one before ended, which the index on the time finds at once.
        """
        rest = self.order_by("placed_at", "pk")
        batch = list(rest[:size])
        while batch:
            yield batch
            last = batch[-1]
            # Not one condition with OR: with that, no database goes by the index.
            following = rest.filter(placed_at__gte=last.placed_at).exclude(placed_at=last.placed_at, pk__lte=last.pk)
            batch = list(following[:size])


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


class Order(models.Model):
    """What a customer bought. Placed with `orders.services.place_order`, which sends its tasks."""

    customer = models.ForeignKey(Customer, models.PROTECT, related_name="orders")
    item = models.CharField(max_length=100)
    amount = models.DecimalField(max_digits=9, decimal_places=2)
    placed_at = models.DateTimeField(default=timezone.now, editable=False)
    receipt_sent_at = models.DateTimeField(null=True, blank=True, editable=False)
    review_asked_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = OrderQuerySet.as_manager()

    class Meta:
        ordering = ["-placed_at", "-pk"]
        # For the ordering, and for what asks for a month, a year or the last day.
        indexes = [models.Index(fields=["-placed_at", "-id"], name="orders_order_newest")]

    def __str__(self) -> str:
        return f"order {self.pk}"


class Shipment(models.Model):
    """A parcel that the carrier has taken on."""

    order = models.OneToOneField(Order, models.CASCADE, related_name="shipment")
    tracking_number = models.CharField(max_length=30, unique=True)
    attempts = models.PositiveIntegerField(help_text="How often the carrier had to be asked.")
    booked_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-booked_at", "-pk"]

    def __str__(self) -> str:
        return self.tracking_number


class SandboxParcel(models.Model):
    """What the carrier's sandbox remembers of a parcel; see orders/carrier.py."""

    reference = models.CharField(max_length=30, unique=True)
    requests = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.reference


class MonthlyClosing(models.Model):
    """The figures of a month, once and for all; see orders/closing.py."""

    month = models.DateField(unique=True, help_text="Its first day.")
    orders = models.PositiveIntegerField()
    total = models.DecimalField(max_digits=12, decimal_places=2)
    days = models.JSONField(default=list, help_text="Day, orders, total; for days with orders.")
    closed_at = models.DateTimeField(default=timezone.now)
    mailed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-month"]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"


def name_of_photo(product: "Product", filename: str) -> str:
    """Return a name that no other photo has or will have, and that nobody can guess."""
    return f"products/{secrets.token_urlsafe(16)}{PurePosixPath(filename).suffix.lower()}"


class Product(models.Model):
    """What the shop sells, with a photo. Saved with `orders.services.save_product`, which has thumbnails made."""

    name = models.CharField(max_length=100, unique=True)
    photo = models.ImageField(
        upload_to=name_of_photo, validators=[FileExtensionValidator(["jpg", "jpeg", "png", "webp"])]
    )
    # The photo whose thumbnails are shown: as long as new ones are being made, the one before.
    published = models.CharField(max_length=100, blank=True, editable=False)
    # The task with which the making began. What died on the way has its id as the root, and so can be found.
    thumbnails_task = models.CharField(max_length=36, blank=True, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_ready(self) -> bool:
        return bool(self.published) and self.published == self.photo.name
