"""Looking up customers, asked of a real server on this machine that behaves as Nominatim does on a busy day."""

import json
import threading
import time
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from celery.signals import task_prerun
from django_taskkit.base_tasks import Permanent
from django_taskkit.models import DeadLetter

from orders import geocoding
from orders.geocoding import locate_customer
from orders.models import Customer
from orders.services import save_customer

LISBON = [{"lat": "38.71234567", "lon": "-9.14", "display_name": "1100 Lisboa"}]


class Geocoder(ThreadingHTTPServer):
    """Gives its answers in turn (status, headers, what is in it), and remembers what it was asked, and when."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = []
        self.asked = []


class Handler(BaseHTTPRequestHandler):
    server: Geocoder

    def do_GET(self):
        self.server.asked.append((time.monotonic(), parse_qs(urlsplit(self.path).query), self.headers["User-Agent"]))
        status, headers, content = self.server.answers.pop(0)
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": len(body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def geocoder(settings):
    server = Geocoder()
    settings.GEOCODER_URL = f"http://127.0.0.1:{server.server_port}/search"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def customer(db):
    return Customer.objects.create(name="Ines Carvalho", postcode="1100")


def test_who_is_saved_with_a_postcode_is_looked_up_when_the_server_has_time(worker, geocoder, until):
    geocoder.answers = [(429, {"Retry-After": "2"}, {}), (200, {}, LISBON)]

    customer = save_customer(Customer(name="Ines Carvalho", postcode="1100"))
    until(Customer.objects.filter(pk=customer.pk, latitude=Decimal("38.712346"), longitude=Decimal("-9.14")).exists)

    (first, query, _), (second, _, _) = geocoder.asked
    assert query == {"postalcode": ["1100"], "format": ["jsonv2"], "limit": ["1"]}
    assert second - first >= 2
    assert not DeadLetter.objects.exists()


def test_a_refusal_is_no_reason_to_ask_again(worker, geocoder, until):
    geocoder.answers = [(404, {}, {})]

    save_customer(Customer(name="Ines Carvalho", postcode="1100"))
    dead = until(DeadLetter.objects.first)

    assert (dead.task_name, dead.reason, dead.attempts) == ("orders.geocoding.locate_customer", "permanent", 1)
    assert "404 Not Found" in dead.exception_message
    assert len(geocoder.asked) == 1


def test_two_customers_are_a_second_apart(worker, geocoder, until):
    geocoder.answers = [(200, {}, LISBON), (200, {}, LISBON)]
    started = []

    def note(**kwargs):
        started.append(time.monotonic())

    task_prerun.connect(note, sender=locate_customer)
    for name in ("Ines Carvalho", "Tomasz Lis"):
        save_customer(Customer(name=name, postcode="1100"))
    until(lambda: Customer.objects.exclude(latitude=None).count() == 2)

    first, second = started
    assert second - first > 0.7  # and not 1: what lies between the worker's clock and this one


def test_a_server_in_trouble_and_one_that_is_away_are_asked_again(geocoder, customer, settings):
    geocoder.answers = [(503, {}, {})]
    with pytest.raises(httpx.HTTPStatusError) as trouble:
        locate_customer.run(customer.pk)
    settings.GEOCODER_URL = "http://127.0.0.1:1/search"
    with pytest.raises(httpx.ConnectError) as away:
        locate_customer.run(customer.pk)

    assert all(isinstance(error.value, locate_customer.autoretry_for) for error in (trouble, away))
    assert not issubclass(Permanent, locate_customer.autoretry_for)


def test_the_server_is_told_who_asks(geocoder, customer, settings):
    geocoder.answers = [(200, {}, LISBON)] * 2

    settings.SITE_URL = "https://shop.example"
    geocoding.find("1100")
    settings.SITE_URL, settings.PROJECT_NAME = "", "Chá"
    geocoding.find("1100")

    assert [agent for *_, agent in geocoder.asked] == ["https://shop.example", "Ch?"]


def test_a_place_that_nobody_knows_leaves_the_customer_without_one(geocoder, customer):
    geocoder.answers = [(200, {}, [])]

    locate_customer(customer.pk)

    customer.refresh_from_db()
    assert customer.latitude is None


def test_who_has_a_place_is_not_looked_up_again(geocoder, customer):
    geocoder.answers = [(200, {}, LISBON)]

    locate_customer(customer.pk)
    locate_customer(customer.pk)

    assert len(geocoder.asked) == 1


def test_who_has_moved_meanwhile_does_not_get_the_old_place(geocoder, customer, monkeypatch):
    def found_late(postcode):
        Customer.objects.update(postcode="4020")
        return Decimal("38.7"), Decimal("-9.1")

    monkeypatch.setattr(geocoding, "find", found_late)

    locate_customer(customer.pk)

    customer.refresh_from_db()
    assert customer.latitude is None


def test_a_customer_that_was_read_before_keeps_the_place_that_was_found_since(customer):
    Customer.objects.update(latitude=1, longitude=1)

    save_customer(customer)

    assert Customer.objects.get().latitude == 1


def test_only_a_new_postcode_is_looked_up(worker, geocoder, customer, admin_client, until):
    geocoder.answers = [(200, {}, LISBON)]
    Customer.objects.update(latitude=1, longitude=1)
    page, form = (f"/admin/orders/customer/{customer.pk}/change/", {"name": "Ines Carvalho", "postcode": "1100"})

    admin_client.post(page, {**form, "email": "ines@example.org"})
    admin_client.post(page, {**form, "email": "ines@example.org", "postcode": "4020"})

    until(Customer.objects.filter(email="ines@example.org", postcode="4020", latitude__gt=38).exists)
    assert [query["postalcode"] for _, query, _ in geocoder.asked] == [["4020"]]


def test_who_has_no_place_yet_is_looked_up_from_the_list(worker, geocoder, customer, admin_client, until):
    geocoder.answers = [(200, {}, LISBON)]
    known = Customer.objects.create(name="Tomasz Lis", postcode="4020", latitude=1, longitude=1)

    page, form = ("/admin/orders/customer/", {"action": "locate", "_selected_action": [customer.pk, known.pk]})
    assert "1 to look up, one a second" in admin_client.post(page, form, follow=True).content.decode()

    until(Customer.objects.filter(pk=customer.pk).exclude(latitude=None).exists)
    assert len(geocoder.asked) == 1


def test_without_a_server_the_list_says_so(customer, admin_client):
    page, form = ("/admin/orders/customer/", {"action": "locate", "_selected_action": [customer.pk]})

    assert "GEOCODER_URL is empty" in admin_client.post(page, form, follow=True).content.decode()


def test_nothing_is_sent_before_the_commit_nor_without_a_server(customer, settings, django_capture_on_commit_callbacks):
    def sends():
        customer.postcode = f"{int(customer.postcode) + 1}"
        with django_capture_on_commit_callbacks() as callbacks:
            save_customer(customer)
        return locate_customer.delay in [getattr(callback, "func", None) for callback in callbacks]

    assert settings.GEOCODER_URL == ""
    assert not sends()
    settings.GEOCODER_URL = "http://127.0.0.1:1/search"
    assert sends()
