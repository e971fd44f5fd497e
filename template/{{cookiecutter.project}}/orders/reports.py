"""The shop's figures. Only counting is here: tasks.py says when, and for how long the answer is good."""

from collections import defaultdict
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from statistics import median
from typing import Any

from django.utils import timezone

from orders.models import Order

BEST_CUSTOMERS = 10


def sales(year: int, set_progress: Callable[..., None]) -> dict[str, Any]:
    """Return what was sold in a year, by month, and to the best customers."""
    as_of = timezone.now()
    orders = Order.objects.of_year(year).select_related("customer")
    total = orders.count()
    by_month: dict[int, list[Decimal]] = defaultdict(list)
    by_customer: dict[tuple[int, str], list[Decimal]] = defaultdict(list)
    done = 0
    for batch in orders.in_batches():
        for order in batch:
            by_month[timezone.localtime(order.placed_at).month].append(order.amount)
            by_customer[order.customer_id, order.customer.name].append(order.amount)
        done += len(batch)
        set_progress(done, total, f"{done:,} of {total:,} orders")
    months = [{"month": date(year, month, 1), **_figures(by_month[month])} for month in sorted(by_month)]
    customers = [{"name": name, **_figures(amounts)} for (_, name), amounts in by_customer.items()]
    customers.sort(key=lambda customer: (-customer["total"], customer["name"]))
    return {
        "as_of": as_of,
        "months": months,
        "customers": customers[:BEST_CUSTOMERS],
        "orders": done,
        "total": sum((customer["total"] for customer in customers), Decimal(0)),
    }


def _figures(amounts: list[Decimal]) -> dict[str, Any]:
    return {"orders": len(amounts), "total": sum(amounts), "median": median(amounts)}
