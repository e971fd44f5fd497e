"""The other end of console.py: runs in the project, reads questions line by line, and answers them."""

import json
import sys
import traceback
from decimal import Decimal

import django
from config.celery import app

django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.files.storage import storages  # noqa: E402
from django.db import close_old_connections  # noqa: E402
from orders.models import Customer, MonthlyClosing, Order, Product, Shipment  # noqa: E402
from orders.services import place_order, save_customer  # noqa: E402
from orders.tasks import export_orders  # noqa: E402

from django_taskkit.models import DeadLetter  # noqa: E402

UNSETTLED = ("dead", "held", "requeued")


def make_owner(password):
    User.objects.create_superuser("ann", "ann@shop.example", password)


def place(number):
    """Place orders of customers who can be written to; returns their numbers."""
    customer, _ = Customer.objects.get_or_create(name="Ines Carvalho", email="ines@shop.example", postcode="1100")
    return [
        place_order(Order(customer=customer, item=f"cup {count}", amount=Decimal("9.50"))).pk for count in range(number)
    ]


def order_of(item):
    return Order.objects.get(item=item).pk


def _placed():
    """Those made up as past have no tasks."""
    return Order.objects.filter(customer__postcode__isnull=False).exclude(customer__name__in=_made_up())


def _made_up():
    from orders.management.commands.place_past_orders import CUSTOMERS

    return CUSTOMERS


def placed():
    return sorted(_placed().values_list("pk", flat=True))


def letters(task, order=None, status="dead"):
    """How many dead letters the task has, of one order or of all."""
    found = DeadLetter.objects.filter(task_name=task, status=status)
    return len([letter for letter in found if order in (None, _order(letter))])


def _order(letter):
    return letter.envelope.payload()[0][0]


def orders_of_dead_letters(task):
    return sorted(_order(letter) for letter in DeadLetter.objects.filter(task_name=task, status="dead"))


def unsettled():
    """Orders that have no receipt, or no parcel, and no dead letter that says why."""
    receipts = set(_placed().exclude(receipt_sent_at=None).values_list("pk", flat=True))
    parcels = set(Shipment.objects.values_list("order_id", flat=True))
    receipts |= set(orders_of_dead_letters("orders.tasks.send_receipt"))
    parcels |= set(orders_of_dead_letters("orders.tasks.book_shipment"))
    return [pk for pk in placed() if pk not in receipts & parcels]


def dead_letters():
    return [
        f"{letter.task_name} {letter.reason} {letter.status} {letter.exception_message}"
        for letter in DeadLetter.objects.all()
    ]


def send(task):
    app.loader.import_default_modules()
    app.tasks[task].delay()


def schedule_something_soon():
    """What the owner would enter in the admin."""
    from django_celery_beat.models import IntervalSchedule, PeriodicTask

    soon, _ = IntervalSchedule.objects.get_or_create(every=5, period="seconds")
    PeriodicTask.objects.create(name="soon", task="orders.tasks.clear_sessions", interval=soon)


def exports_made():
    try:
        return len(storages["exports"].listdir("")[1])
    except FileNotFoundError:
        return 0


def start_export(year):
    export_orders.cached.refresh(year=year, kind="xlsx")


def how_far(year):
    state = export_orders.cached.peek(year=year, kind="xlsx")
    return state.progress.percent or 0 if state.progress else 0


def export_is_there(year):
    state = export_orders.cached.peek(year=year, kind="xlsx")
    fresh = str(state.status) == "hit" and state.run is None
    return fresh and storages["exports"].exists(state.value["file"])


def meet(number):
    """Enter customers, whose places are then looked up."""
    return [save_customer(Customer(name=f"Customer {count}", postcode=f"20{count:02}")).pk for count in range(number)]


def located(customers):
    return Customer.objects.filter(pk__in=customers, latitude__isnull=False).count()


def closings():
    """Months that are closed, and whether they were mailed."""
    return [[str(closing), closing.mailed_at is not None] for closing in MonthlyClosing.objects.all()]


def close(year, month):
    from datetime import date

    from orders.closing import close_month

    close_month(date(year, month, 1))


def is_ready(product):
    return Product.objects.get(name=product).is_ready


def answer(question, names):
    try:
        return {"value": eval(question, {**globals(), **names})}  # noqa: S307 (the test wrote it)
    except Exception:
        return {"error": traceback.format_exc()}


def main():
    assert not settings.DEBUG
    real, sys.stdout = sys.stdout, sys.stderr  # what is printed on the way is no answer
    for line in sys.stdin:
        close_old_connections()
        print(json.dumps(answer(*json.loads(line)), default=str), file=real, flush=True)


if __name__ == "__main__":
    main()
