import io
import time
from decimal import Decimal

import pytest
from celery.contrib.testing.worker import start_worker
from django.core.management import call_command

from config.celery import app
from orders.models import Customer, Order
from orders.services import place_order


@pytest.fixture
def worker(transactional_db):
    """A real worker on the real broker, in a thread of the test."""
    # timer_precision: seconds for which its clock sleeps at a time, and for which a stop waits for it.
    with start_worker(app, pool="solo", perform_ping_check=False, timer_precision=0.1):
        yield


@pytest.fixture
def order_from():
    """Place an order of a new customer."""

    def place(email="ines@example.org", postcode="1100"):
        customer = Customer.objects.create(name="Ines Carvalho", email=email, postcode=postcode)
        return place_order(Order(customer=customer, item="a teapot", amount=Decimal("34.90")))

    return place


@pytest.fixture
def until():
    """Return the first true value of a condition, or fail after 30 seconds; meanwhile, do the relay's work."""

    def wait(condition):
        deadline = time.monotonic() + 30
        while not (value := condition()):
            assert time.monotonic() < deadline, "still not true after 30 seconds"
            call_command("taskkit", "relay", "--once", stdout=io.StringIO())
            time.sleep(0.05)
        return value

    return wait
