"""The orders of a year as a file, for Excel or for what reads CSV."""

import secrets
from collections.abc import Callable, Iterator
from datetime import timedelta
from tempfile import TemporaryFile
from typing import Any, NamedTuple

from django.core.files import File
from django.core.files.storage import storages
from django.utils import timezone

from orders import sheets
from orders.models import Order


class Kind(NamedTuple):
    label: str
    content_type: str
    write: Callable[..., None]


#: By the end of the file's name.
KINDS = {
    "xlsx": Kind("Excel", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", sheets.write_xlsx),
    "csv": Kind("CSV", "text/csv; charset=utf-8", sheets.write_csv),
}

#: How long the page offers a file. It has names of customers in it, so not longer than it takes to fetch it.
OFFERED_FOR = timedelta(hours=1)
#: How long it is kept: longer, as somebody may open the page in the last minute and then read mail.
KEPT_FOR = timedelta(hours=2)

#: Title and width of each column.
COLUMNS = [("Order", 10), ("Placed", 18), ("Customer", 30), ("Item", 30), ("Amount", 14)]


def make_file(year: int, kind: str, set_progress: Callable[..., None]) -> dict[str, Any]:
    """Write the file; return its name in the storage `exports`, and what a page says of it."""
    as_of = timezone.now()
    sheets.forget_unfinished(before=as_of - KEPT_FOR)  # beat's task may run on another machine
    done = 0

    def rows() -> Iterator[list[Any]]:
        nonlocal done
        orders = Order.objects.of_year(year).select_related("customer")
        total = orders.count()
        for batch in orders.in_batches():
            for order in batch:
                yield [order.pk, order.placed_at, order.customer.name, order.item, order.amount]
            done += len(batch)
            set_progress(done, total, f"{done:,} of {total:,} orders")

    with TemporaryFile() as file:
        KINDS[kind].write(file, f"Orders {year}", COLUMNS, rows())
        size = file.tell()
        # Nobody can guess the name, in case the storage hands out files to whoever knows their names. And each
        # run has a file of its own: one that is being fetched is never written to.
        name = storages["exports"].save(f"{secrets.token_urlsafe(24)}.{kind}", File(file))
    return {"as_of": as_of, "file": name, "orders": done, "size": size}


def is_there(export: dict[str, Any] | None) -> bool:
    return export is not None and storages["exports"].exists(export["file"])


def delete_old_files() -> None:
    """Delete what is older than any page offers, and what was left by a worker that was killed."""
    before = timezone.now() - KEPT_FOR
    sheets.forget_unfinished(before)
    storage = storages["exports"]
    try:
        _, names = storage.listdir("")
    except FileNotFoundError:
        return  # nothing was ever exported
    for name in names:
        try:
            if storage.get_modified_time(name) < before:
                storage.delete(name)
        except Exception:  # what it is depends on the storage
            if storage.exists(name):
                raise  # else another run was quicker
