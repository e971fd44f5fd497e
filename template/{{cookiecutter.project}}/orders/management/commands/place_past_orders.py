"""Make up orders of the last two years, so that there is something to report."""

from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from orders.apps import forget_reports
from orders.models import Customer, Order

#: The last one would be a formula, if a sheet took names for what they look like.
CUSTOMERS = ["Café Lumen", "Hotel Azul", "Kita Nordlicht", "Tea & Sons", "The Reading Room", "=SUM(1,1) Teas"]
ITEMS = ["a teapot", "two cups", "a kettle", "green tea", "a tray", "a strainer"]
DAYS = 730


class Command(BaseCommand):
    help = "Makes up orders that are done with, evenly over the last two years. It sends no tasks."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("number", nargs="?", type=int, default=20_000)

    def handle(self, *, number: int, **options: Any) -> None:
        chance = Random(7)  # the same orders each time
        customers = [Customer.objects.get_or_create(name=name, postcode="1100")[0] for name in CUSTOMERS]
        last = timezone.now() - timedelta(days=2)
        times = [last - timedelta(days=DAYS) * step / number for step in range(number)]
        Order.objects.bulk_create(
            (
                Order(
                    customer=chance.choice(customers),
                    item=chance.choice(ITEMS),
                    amount=Decimal(chance.randint(500, 9_000)) / 100,
                    placed_at=time,
                    receipt_sent_at=time,
                )
                for time in times
            ),
            batch_size=1000,
        )
        forget_reports()
        self.stdout.write(f"{number} orders of the last {DAYS} days")
