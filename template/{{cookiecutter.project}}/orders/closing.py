"""The closing of a month: figures are collected, stored once and for all, and mailed. A chain of three tasks.

Each gets what the one before returns. A link that dies is a dead letter, and holds up what follows: requeued, it goes
on from there, and what was done before is not done again.
"""

from collections import defaultdict
from datetime import date, timedelta
from decimal import Decimal
from io import BytesIO
from typing import Any

from celery import chain, shared_task
from django.conf import settings
from django.core.mail import EmailMessage
from django.db.models import Min
from django.utils import timezone
from django_taskkit.base_tasks import BaseTaskWithRetry, Permanent

from orders import sheets
from orders.models import MonthlyClosing, Order
from orders.tasks import address_of_owner

#: Months that are caught up on at most: of a shop that brings its orders along, each would be a mail.
CATCH_UP = 12


@shared_task(base=BaseTaskWithRetry)
def close_last_month() -> None:
    """Sent by beat on the first of each month. Once more does no harm: a month is closed, and mailed, once.

    The months before it are looked at too: a message that waited for its worker until the next month, or one that
    beat never sent, else leaves a month that nobody closes.
    """
    months = [_month_before(timezone.localdate())]
    first = Order.objects.aggregate(first=Min("placed_at"))["first"]
    while first and months[-1] > timezone.localdate(first) and len(months) < CATCH_UP:
        months.append(_month_before(months[-1]))
    done = set(MonthlyClosing.objects.filter(month__in=months).exclude(mailed_at=None).values_list("month", flat=True))
    for month in reversed(months):
        if month not in done:
            close_month(month)


def _month_before(day: date) -> date:
    return (day.replace(day=1) - timedelta(days=1)).replace(day=1)


def close_month(day: date) -> None:
    """Start the closing of the month of this day."""
    chain(collect.s(day.replace(day=1).isoformat()), store.s(), mail.s()).apply_async()


@shared_task(base=BaseTaskWithRetry)
def collect(month: str) -> dict[str, Any]:
    """Return the figures of each day. Few and small: they travel in the message of the next task."""
    first = date.fromisoformat(month)
    if first >= timezone.localdate().replace(day=1):
        raise Permanent(f"{first:%B %Y} is not over yet.")
    days: dict[date, list[Decimal]] = defaultdict(list)
    for batch in Order.objects.of_month(first).in_batches():
        for order in batch:
            days[timezone.localdate(order.placed_at)].append(order.amount)
    # Amounts as text: a JSON number is a float elsewhere, and loses cents.
    return {
        "month": month,
        "orders": sum(len(amounts) for amounts in days.values()),
        "total": str(sum((sum(amounts) for amounts in days.values()), Decimal(0))),
        "days": [[day.isoformat(), len(days[day]), str(sum(days[day]))] for day in sorted(days)],
    }


@shared_task(base=BaseTaskWithRetry)
def store(figures: dict[str, Any]) -> int:
    """Return the closing of that month. The one that is there counts: who has its mail must find it unchanged."""
    closing, _ = MonthlyClosing.objects.get_or_create(
        month=date.fromisoformat(figures["month"]),
        defaults={name: figures[name] for name in ("orders", "total", "days")},
    )
    return closing.pk


@shared_task(base=BaseTaskWithRetry, autoretry_for=(OSError,))
def mail(closing_id: int) -> None:
    closing = MonthlyClosing.objects.get(pk=closing_id)
    if closing.mailed_at:
        return
    message = EmailMessage(
        subject=f"{settings.PROJECT_NAME}: closing of {closing}",
        body=f"Orders: {closing.orders}\nTotal: {closing.total:.2f}\n",
        to=[address_of_owner()],
    )
    message.attach(f"closing-{closing}.csv", as_csv(closing).decode(), "text/csv")
    message.send()
    # A crash between these two lines sends the mail once more; the other way round it might never be sent.
    MonthlyClosing.objects.filter(pk=closing.pk).update(mailed_at=timezone.now())


def as_csv(closing: MonthlyClosing) -> bytes:
    file = BytesIO()
    rows = [[date.fromisoformat(day), orders, Decimal(total)] for day, orders, total in closing.days]
    sheets.write_csv(file, str(closing), [("Day", 12), ("Orders", 10), ("Total", 14)], rows)
    return file.getvalue()
