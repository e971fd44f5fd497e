"""The orders of a year as an Excel file."""

import secrets
from collections.abc import Callable
from datetime import timedelta
from tempfile import TemporaryFile
from typing import Any

from django.core.files import File
from django.core.files.storage import storages
from django.utils import timezone
from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
from openpyxl.utils import get_column_letter

from orders.models import Order

CONTENT_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

#: How long the page offers a file. It has names of customers in it, so not longer than it takes to fetch it.
OFFERED_FOR = timedelta(hours=1)
#: How long it is kept: longer, as somebody may open the page in the last minute and then read mail.
KEPT_FOR = timedelta(hours=2)

#: Title and width of each column.
COLUMNS = [("Order", 10), ("Placed", 18), ("Customer", 30), ("Item", 30), ("Amount", 14)]


def make_file(year: int, set_progress: Callable[..., None]) -> dict[str, Any]:
    """Write the file; return its name in the storage `exports`, and what a page says of it."""
    as_of = timezone.now()
    orders = Order.objects.of_year(year).select_related("customer")
    total = orders.count()
    # Write-only: rows go to the disk as they come. Else the whole sheet is in memory, 50 times its file's size.
    workbook = Workbook(write_only=True)
    sheet = workbook.create_sheet(f"Orders {year}")
    sheet.freeze_panes = "A2"
    for number, (_, width) in enumerate(COLUMNS, start=1):
        sheet.column_dimensions[get_column_letter(number)].width = width
    sheet.append([title for title, _ in COLUMNS])
    done = 0
    for batch in orders.in_batches():
        for order in batch:
            sheet.append(_row(sheet, order))
        done += len(batch)
        set_progress(done, total, f"{done:,} of {total:,} orders")
    with TemporaryFile() as file:
        workbook.save(file)
        size = file.tell()
        # Nobody can guess the name, in case the storage hands out files to whoever knows their names. And each
        # run has a file of its own: one that is being fetched is never written to.
        name = storages["exports"].save(f"{secrets.token_urlsafe(24)}.xlsx", File(file))
    return {"as_of": as_of, "file": name, "orders": done, "size": size}


def _row(sheet: Any, order: Order) -> list[Any]:
    amount = WriteOnlyCell(sheet, order.amount)
    amount.number_format = "#,##0.00"
    placed_at = timezone.make_naive(order.placed_at)  # Excel has no time zones
    return [order.pk, placed_at, _text(sheet, order.customer.name), _text(sheet, order.item), amount]


def _text(sheet: Any, value: str) -> WriteOnlyCell:
    """Return a cell that is text, whatever is in it.

    A customer who is called `=HYPERLINK(…)` must not become a formula, which can send the sheet elsewhere. So the
    cell has the type text and, where it looks like a formula, the mark that Excel gives to what is typed after an
    apostrophe: it stays text when somebody edits it. A CSV file has neither types nor marks; there, put a real
    apostrophe before such values.
    """
    cell = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("", value))  # which make a file that Excel refuses
    cell.data_type = "s"
    if value.startswith(("=", "+", "-", "@", "\t", "\r")):
        cell.quotePrefix = True
    return cell


def is_there(export: dict[str, Any] | None) -> bool:
    return export is not None and storages["exports"].exists(export["file"])


def delete_old_files() -> None:
    """Delete what is older than any page offers, and what was left by a worker that was killed."""
    storage = storages["exports"]
    try:
        _, names = storage.listdir("")
    except FileNotFoundError:
        return  # nothing was ever exported
    for name in names:
        if storage.get_modified_time(name) < timezone.now() - KEPT_FOR:
            storage.delete(name)
