"""Place six orders, so that there is something to look at."""

from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand

from orders.models import Customer, Order
from orders.services import place_order, save_customer

#: Who, e-mail, postcode, what, for how much. A postcode with 00 is one that the carrier does not know.
ORDERS = [
    ("Ines Carvalho", "ines@example.org", "1100", "a teapot", "34.90"),
    ("Tomasz Lis", "tomasz@example.org", "4020", "two cups", "18.00"),
    ("Mira Holm", "", "2200", "a kettle", "59.50"),
    ("Yusuf Aydin", "", "3400", "green tea", "12.40"),
    ("Nora Byrne", "nora@example.org", "0013", "a tray", "27.00"),
    ("Paul Okafor", "paul@example.org", "0077", "a strainer", "9.80"),
]


class Command(BaseCommand):
    help = (
        "Places six orders: twelve tasks. Four receipts go out at once, four parcels are booked at the third "
        "attempt, two customers have no e-mail address and two a postcode that the carrier does not know."
    )

    def handle(self, **options: Any) -> None:
        for name, email, postcode, item, amount in ORDERS:
            customer = save_customer(Customer(name=name, email=email, postcode=postcode))
            order = place_order(Order(customer=customer, item=item, amount=Decimal(amount)))
            self.stdout.write(f"{order}: {item} for {name}")
