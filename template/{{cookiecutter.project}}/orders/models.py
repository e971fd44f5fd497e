from collections.abc import Iterator

from django.db import models
from django.utils import timezone


class Customer(models.Model):
    name = models.CharField(max_length=100)
    email = models.EmailField(blank=True, help_text="May be unknown, as when somebody orders by telephone.")
    postcode = models.CharField(max_length=10)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class OrderQuerySet(models.QuerySet):
    def of_year(self, year: int) -> "OrderQuerySet":
        return self.filter(placed_at__year=year)

    def in_batches(self, size: int = 500) -> Iterator[list["Order"]]:
        """Yield all orders, some at a time, by number.

        Not `iterator()`, whose query stays open while the caller works on what it gives: on SQLite, as soon as
        another process has written, this connection could write no more, not even the progress of a task.
        """
        last = 0
        while batch := list(self.filter(pk__gt=last).order_by("pk")[:size]):
            yield batch
            last = batch[-1].pk


class Order(models.Model):
    """What a customer bought. Placed with `orders.services.place_order`, which sends its tasks."""

    customer = models.ForeignKey(Customer, models.PROTECT, related_name="orders")
    item = models.CharField(max_length=100)
    amount = models.DecimalField(max_digits=9, decimal_places=2)
    placed_at = models.DateTimeField(default=timezone.now, editable=False)
    receipt_sent_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = OrderQuerySet.as_manager()

    class Meta:
        ordering = ["-placed_at", "-pk"]

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
