"""The closing of a month: figures, a row, a mail; once, whatever is run twice."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from django.core import mail
from django.utils import timezone
from django_taskkit.base_tasks import Permanent
from django_taskkit.models import DeadLetter

from orders import closing
from orders.models import Customer, MonthlyClosing, Order

pytestmark = pytest.mark.django_db


@pytest.fixture
def sold(db):
    """Write down an order of some time; no tasks."""
    customer = Customer.objects.create(name="Ines Carvalho", postcode="1100")

    def write(placed_at, amount):
        return Order.objects.create(customer=customer, item="a teapot", amount=Decimal(amount), placed_at=placed_at)

    return write


@pytest.fixture
def _may(sold):
    for day, hour, amount in [(1, 0, "0.10"), (1, 12, "0.20"), (31, 23, "34.90")]:
        sold(at(f"2024-05-{day:02} {hour:02}:00"), amount)
    sold(at("2024-04-30 23:59"), "1.00")
    sold(at("2024-06-01 00:00"), "1.00")


@pytest.mark.usefixtures("_may")
def test_the_figures_are_those_of_the_month_and_exact():
    assert closing.collect("2024-05-01") == {
        "month": "2024-05-01",
        "orders": 3,
        "total": "35.20",
        "days": [["2024-05-01", 2, "0.30"], ["2024-05-31", 1, "34.90"]],
    }


def test_a_day_ends_at_midnight_of_the_shop_and_not_of_greenwich(sold, settings):
    settings.TIME_ZONE = "Pacific/Auckland"
    sold(datetime(2024, 4, 30, 12, 30, tzinfo=UTC), "5.00")  # half past midnight, on the first of May, over there

    assert closing.collect("2024-05-01")["days"] == [["2024-05-01", 1, "5.00"]]


def test_december_has_the_orders_of_its_last_day(sold):
    sold(at("2023-12-31 22:00"), "5.00")

    assert closing.collect("2023-12-01")["orders"] == 1


def test_a_month_without_orders_is_closed_too():
    assert closing.collect("2024-05-01") == {"month": "2024-05-01", "orders": 0, "total": "0", "days": []}


def test_a_month_that_is_not_over_is_not_closed():
    with pytest.raises(Permanent, match="is not over yet"):
        closing.collect(timezone.localdate().replace(day=1).isoformat())


@pytest.mark.usefixtures("_may")
def test_a_month_is_closed_once_and_keeps_its_figures(sold):
    first = closing.store(closing.collect("2024-05-01"))
    sold(at("2024-05-02 00:00"), "99.00")

    assert closing.store(closing.collect("2024-05-01")) == first
    assert MonthlyClosing.objects.get().total == Decimal("35.20")


@pytest.mark.usefixtures("_may")
def test_the_mail_has_the_figures_of_each_day_and_is_sent_once():
    pk = closing.store(closing.collect("2024-05-01"))

    closing.mail(pk)
    closing.mail(pk)

    [message] = mail.outbox
    assert message.to == ["owner@localhost"]
    assert "Total: 35.20" in message.body
    assert message.attachments[0] == (
        "closing-2024-05.csv",
        "\ufeffDay,Orders,Total\r\n2024-05-01,2,0.30\r\n2024-05-31,1,34.90\r\n",
        "text/csv",
    )


def test_beat_has_last_month_closed_by_a_chain(worker, until, settings):
    closing.close_last_month.delay()

    row = until(MonthlyClosing.objects.exclude(mailed_at=None).first)

    this_month = timezone.localdate().replace(day=1)
    assert row.month == date.fromordinal(this_month.toordinal() - 1).replace(day=1)
    assert [message.subject for message in mail.outbox] == [f"{settings.PROJECT_NAME}: closing of {row}"]


def test_months_that_nobody_closed_are_caught_up_on(sold, monkeypatch):
    closed = []
    monkeypatch.setattr(closing, "close_month", closed.append)
    sold(at("2023-12-31 22:00"), "5.00")
    done = MonthlyClosing.objects.create(month="2024-01-01", orders=0, total=0, mailed_at=timezone.now())
    MonthlyClosing.objects.create(month="2024-03-01", orders=0, total=0)  # stored, and not mailed

    # The message of the first of March, which found a worker on the first of May.
    monkeypatch.setattr(timezone, "now", lambda: at("2024-05-01 03:00"))
    closing.close_last_month()

    months = [date(2023, 12, 1), date(2024, 2, 1), date(2024, 3, 1), date(2024, 4, 1)]
    assert closed == months

    closed.clear()
    done.delete()
    monkeypatch.setattr(timezone, "now", lambda: at("2034-05-01 03:00"))
    closing.close_last_month()
    assert len(closed) == closing.CATCH_UP, "and of years, one"
    assert closed[-1] == date(2034, 4, 1)


def test_before_there_is_an_order_only_last_month_is_closed(monkeypatch):
    closed = []
    monkeypatch.setattr(closing, "close_month", closed.append)
    monkeypatch.setattr(timezone, "now", lambda: at("2024-01-01 03:00"))

    closing.close_last_month()

    assert closed == [date(2023, 12, 1)]


def test_a_link_that_dies_goes_on_from_there_once_it_is_requeued(worker, until, settings, admin_client):
    settings.DIGEST_TO = ""
    closing.close_month(date(2024, 5, 31))
    dead = until(DeadLetter.objects.filter(task_name="orders.closing.mail").first)
    assert "DIGEST_TO" in dead.exception_message
    row = MonthlyClosing.objects.get()

    settings.DIGEST_TO = "owner@example.org"
    admin_client.post(f"/admin/django_taskkit/deadletter/{dead.pk}/requeue/", {"confirmed": "1"})

    until(DeadLetter.objects.filter(pk=dead.pk, status="recovered").exists)
    assert [message.to for message in mail.outbox] == [["owner@example.org"]]
    assert MonthlyClosing.objects.get().closed_at == row.closed_at


def test_a_closing_is_looked_at_in_the_admin_and_not_changed(admin_client):
    pk = closing.store(closing.collect("2024-05-01"))

    page = admin_client.get(f"/admin/orders/monthlyclosing/{pk}/change/")

    assert page.status_code == 200
    assert 'name="_save"' not in page.content.decode()
    assert admin_client.post(f"/admin/orders/monthlyclosing/{pk}/delete/").status_code == 403


def at(text):
    return timezone.make_aware(datetime.fromisoformat(text))
