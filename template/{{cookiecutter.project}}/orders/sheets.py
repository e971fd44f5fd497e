"""Tables as files, written row by row: what is in memory does not grow with the number of rows."""

import csv
import io
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from django.conf import settings
from django.utils import timezone
from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
from openpyxl.utils import get_column_letter
from openpyxl.worksheet._writer import WorksheetWriter

#: Excel opens no sheet with more than 1,048,576 rows; one of them has the titles.
ROWS_PER_SHEET = 1_048_575
#: What a cell begins with that sheets take for a formula, also as the full-width signs of East Asian keyboards.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")

Columns = Sequence[tuple[str, int]]  #: title and width of each
Rows = Iterable[Sequence[Any]]


def write_xlsx(file: IO[bytes], name: str, columns: Columns, rows: Rows) -> None:
    """Write a workbook; what is too much for one sheet goes on in the next."""
    # Write-only: rows go to the disk as they come. Else the whole sheet is in memory, 50 times its file's size.
    workbook = Workbook(write_only=True)
    with TemporaryDirectory(dir=_unfinished()) as folder:
        try:
            sheet = _new_sheet(workbook, name, columns, folder)
            for index, row in enumerate(rows):
                if index and index % ROWS_PER_SHEET == 0:
                    sheet = _new_sheet(workbook, f"{name} ({index // ROWS_PER_SHEET + 1})", columns, folder)
                sheet.append([_cell(sheet, value) for value in row])
            workbook.save(file)
        finally:
            for sheet in workbook.worksheets:
                if not sheet.closed:  # something failed, which is what the caller has to hear of
                    with suppress(Exception):
                        sheet.close()


def _new_sheet(workbook: Workbook, name: str, columns: Columns, folder: str) -> Any:
    sheet = workbook.create_sheet(name)
    sheet.freeze_panes = "A2"
    for number, (_, width) in enumerate(columns, start=1):
        sheet.column_dimensions[get_column_letter(number)].width = width
    sheet._writer = _Writer(sheet, f"{folder}/{len(workbook.worksheets)}")
    sheet._writer.write_top()
    sheet.append([title for title, _ in columns])
    return sheet


class _Writer(WorksheetWriter):
    """Writes a sheet where it is told to.

    openpyxl's own writes to /tmp and deletes that when the process ends: until then, what failed is there with the
    names of customers in it, and if the worker is killed, for ever.
    """

    def cleanup(self) -> None:
        Path(self.out).unlink()


def _unfinished() -> Path:
    folder = settings.VAR_DIR / "unfinished"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def forget_unfinished(before: datetime) -> None:
    """Delete what workers have left on this machine that were killed before that time."""
    for folder in _unfinished().iterdir():
        try:
            if folder.stat().st_mtime < before.timestamp():
                shutil.rmtree(folder)
        except FileNotFoundError:  # another run was quicker
            continue


def _cell(sheet: Any, value: Any) -> Any:
    if isinstance(value, str):
        return _text(sheet, value)
    if isinstance(value, datetime):
        return timezone.make_naive(value)  # Excel has no time zones
    if isinstance(value, Decimal):
        cell = WriteOnlyCell(sheet, value)
        cell.number_format = "#,##0.00"
        return cell
    return value


def _text(sheet: Any, value: str) -> WriteOnlyCell:
    """Return a cell that is text, whatever is in it.

    A customer who is called `=HYPERLINK(…)` must not become a formula, which can send the sheet elsewhere. So the
    cell has the type text and, where it looks like a formula, the mark that Excel gives to what is typed after an
    apostrophe: it stays text when somebody edits it.
    """
    cell = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("", value))  # which make a file that Excel refuses
    cell.data_type = "s"
    if value.startswith(FORMULA):
        cell.quotePrefix = True
    return cell


def write_csv(file: IO[bytes], name: str, columns: Columns, rows: Rows) -> None:
    """Write a file with commas. It has no types, so text that looks like a formula gets a real apostrophe."""
    # With a mark that says UTF-8. Without: Excel reads it in the encoding of the machine, and é is Ã©.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    lines = csv.writer(text)
    lines.writerow([title for title, _ in columns])
    lines.writerows([_plain(value) for value in row] for row in rows)
    text.detach()  # which flushes, and leaves the file open


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return f"{timezone.make_naive(value):%Y-%m-%d %H:%M:%S}"
    # Blanks before it are cut off by some, and then it is a formula after all.
    if isinstance(value, str) and value.lstrip(" ").startswith(FORMULA):
        return f"'{value}"
    return value
