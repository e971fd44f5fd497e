from datetime import {% if cookiecutter.database == "sqlite" %}date, {% endif %}timedelta

import pytest
from django.contrib.sessions.models import Session
from django.core import mail
from django.db import transaction
from django.utils import timezone
{%- if cookiecutter.scheduler == "django-celery-beat" %}
from django_celery_beat.models import IntervalSchedule, PeriodicTask
{%- endif %}
{%- if cookiecutter.results == "database" %}
from django_celery_results.models import TaskResult
{%- endif %}
from django_taskkit.models import OutboxMessage

from orders import carrier
from orders.models import Customer, Order, Shipment
from orders.tasks import NoEmailAddressError, clear_sessions, nightly_digest, send_receipt

pytestmark = pytest.mark.django_db


def test_a_receipt_names_what_was_bought(order_from):
    order = order_from()

    send_receipt(order.pk)

    assert mail.outbox[0].to == ["ines@example.org"]
    assert "a teapot for 34.90" in mail.outbox[0].body


def test_a_receipt_that_was_sent_is_not_sent_again(order_from):
    order = order_from()

    send_receipt(order.pk)
    send_receipt(order.pk)

    assert len(mail.outbox) == 1


def test_without_an_address_the_error_names_the_remedy(order_from):
    order = order_from(email="")

    with pytest.raises(NoEmailAddressError, match="fill it in in the admin"):
        send_receipt(order.pk)


def test_a_missing_address_is_not_waited_for():
    assert not issubclass(NoEmailAddressError, send_receipt.autoretry_for)
    assert issubclass(ConnectionRefusedError, send_receipt.autoretry_for)


def test_the_carrier_is_busy_twice_and_then_keeps_its_number():
    for _ in range(2):
        with pytest.raises(carrier.CarrierBusyError):
            carrier.book("ORDER-1", "1100")

    assert carrier.book("ORDER-1", "1100") == carrier.book("ORDER-1", "1100") == "TRK-ORDER-1"


def test_the_digest_counts_what_waits(order_from):
    order_from()

    nightly_digest()

    assert "without a receipt: 1" in mail.outbox[0].body
    assert "Dead letters that wait for you: 0" in mail.outbox[0].body


def test_a_digest_for_nobody_is_an_error_and_no_mail(settings):
    settings.DIGEST_TO = ""

    with pytest.raises(NoEmailAddressError, match="DIGEST_TO"):
        nightly_digest()


def test_sessions_that_have_expired_are_deleted():
    for key, age in (("old", -1), ("new", 1)):
        Session.objects.create(session_key=key, expire_date=timezone.now() + timedelta(days=age))

    clear_sessions()

    assert Session.objects.get().session_key == "new"


def test_an_order_placed_in_the_admin_leaves_its_tasks_in_the_outbox(admin_client, order_from):
    customer = order_from().customer
    OutboxMessage.objects.all().delete()

    form = {"customer": customer.pk, "item": "two cups", "amount": "18.00"}
    response = admin_client.post("/admin/orders/order/add/", form)

    assert response.status_code == 302
    waiting = OutboxMessage.objects.order_by("pk").values_list("task_name", flat=True)
    assert list(waiting) == ["orders.tasks.send_receipt", "orders.tasks.book_shipment"]


def test_the_form_of_an_order_does_not_list_all_customers(admin_client):
    for number in range(30):
        Customer.objects.create(name=f"Customer {number}", postcode="1100")

    assert "Customer 7" not in admin_client.get("/admin/orders/order/add/").content.decode()
    field = {"app_label": "orders", "model_name": "order", "field_name": "customer"}
    found = admin_client.get("/admin/autocomplete/", {"term": "Customer 29", **field}).json()
    assert [customer["text"] for customer in found["results"]] == ["Customer 29"]


def test_every_list_of_the_admin_opens_wherever_the_shop_is(admin_client, order_from, settings):
    settings.TIME_ZONE = "Pacific/Auckland"
    order_from()
{%- if cookiecutter.results == "database" %}
    TaskResult.objects.create(task_id="a task")
{%- endif %}
{%- if cookiecutter.scheduler == "django-celery-beat" %}
    every, _ = IntervalSchedule.objects.get_or_create(every=1, period="days")
    PeriodicTask.objects.create(name="a task", interval=every, start_time=timezone.now())
{%- endif %}
    index = admin_client.get("/admin/")

    lists = [model["admin_url"] for app in index.context["app_list"] for model in app["models"]]
    assert "/admin/orders/order/" in lists
    for url in lists:
        assert admin_client.get(url).status_code == 200, url
{%- if cookiecutter.database == "sqlite" %}


def test_orders_of_a_time_and_the_newest_ones_are_found_by_an_index():
    for orders in (Order.objects.all(), Order.objects.of_year(2024), Order.objects.of_month(date(2024, 5, 1))):
        assert "orders_order_newest" in orders.order_by("-placed_at", "-pk")[:100].explain()
{%- endif %}


def test_an_order_that_is_rolled_back_takes_its_tasks_along(order_from):
    def place_and_fail():
        with transaction.atomic():
            order_from()
            raise RuntimeError("something else of this transaction failed")

    with pytest.raises(RuntimeError):
        place_and_fail()

    assert not Order.objects.exists()
    assert not OutboxMessage.objects.exists()


def test_a_parcel_is_booked_when_the_carrier_has_time_again(worker, order_from, until):
    order = order_from()

    shipment = until(Shipment.objects.filter(order=order).first)

    assert shipment.attempts == 3
