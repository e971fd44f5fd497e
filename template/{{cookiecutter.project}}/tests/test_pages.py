"""The report and the export, as their pages show them: made by a real worker, on the project's settings."""

import csv
import stat
import tempfile
from decimal import Decimal
from io import BytesIO

import openpyxl
import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.staticfiles import finders
from django.core.cache import cache
from django.core.files.storage import storages
from django.utils import timezone
from django_taskkit.results import Status

from orders import exports, sheets
from orders.models import Customer, Order
from orders.tasks import delete_old_exports, export_orders, sales_report

YEAR = timezone.localdate().year
SALES, EXPORT = f"/reports/sales/{YEAR}/", f"/exports/orders/{YEAR}/"
XLSX, CSV = f"{EXPORT}xlsx/", f"{EXPORT}csv/"


@pytest.fixture(autouse=True)
def _nothing_is_cached(db):
    cache.clear()  # its table is not one that Django empties after a test


@pytest.fixture
def page(admin_client):
    """Return a page's text."""

    def text(url):
        return admin_client.get(url).content.decode()

    return text


def test_who_is_not_known_is_sent_to_the_login(client):
    for url in ("/", SALES, EXPORT, XLSX, CSV):
        assert client.get(url)["Location"] == f"/admin/login/?next={url}"


def test_who_may_not_see_orders_sees_neither_page(client):
    client.force_login(User.objects.create_user("packer", is_staff=True))

    assert SALES not in client.get("/").content.decode()
    assert [client.get(url).status_code for url in (SALES, EXPORT, XLSX)] == [403, 403, 403]


def test_who_may_see_orders_is_led_to_both(client):
    clerk = User.objects.create_user("clerk", is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename="view_order"))
    client.force_login(clerk)

    start = client.get("/").content.decode()

    assert f'href="{SALES}"' in start
    assert f'href="{EXPORT}"' in start


def test_no_page_has_anything_inline_that_a_strict_content_security_policy_forbids(page):
    for text in (page("/"), page(SALES), page(EXPORT)):
        assert "<style" not in text
        assert " style=" not in text
        assert text.count("<script") == text.count("<script src=")


def test_what_the_pages_load_is_there(client):
    assert client.get("/favicon.ico")["Location"] == "/static/orders/icon.svg"
    for name in ("orders/icon.svg", "django_taskkit/progress.js", "django_taskkit/progress.css", "orders/pages.css"):
        assert finders.find(name)


def test_a_year_that_makes_no_sense_is_no_page(admin_client):
    for year in ("1066", "20255", "0", "year"):
        assert admin_client.get(f"/reports/sales/{year}/").status_code == 404
    assert admin_client.get(f"{EXPORT}pdf/").status_code == 404


def test_the_report_shows_how_far_it_is_and_then_the_figures(worker, order_from, page, until):
    for _ in range(2):
        order_from()

    assert "<progress" in page(SALES)
    shown = until(lambda: "By month" in (text := page(SALES)) and text)

    assert "69.80" in shown
    assert "Ines Carvalho" in shown
    assert "<progress" not in shown
    assert "Renew" in shown


def test_an_order_that_comes_in_is_in_the_next_report(worker, order_from, page, until):
    order_from()
    until(lambda: sales_report.cached.get_or_dispatch(year=YEAR).has_value)

    order_from()

    assert not sales_report.cached.peek(year=YEAR).has_value
    assert until(lambda: sales_report.cached.get_or_dispatch(year=YEAR).value)["orders"] == 2


def test_the_button_has_the_report_made_anew_and_shows_the_old_one_meanwhile(worker, order_from, admin_client, until):
    order_from()
    old = until(lambda: sales_report.cached.get_or_dispatch(year=YEAR).value)
    Order.objects.update(amount=Decimal("1.00"))  # which tells nobody

    shown = admin_client.post(SALES).content.decode()

    assert "<progress" in shown
    assert "Renew" not in shown
    assert str(old["total"]) in shown
    until(lambda: sales_report.cached.peek(year=YEAR).value["total"] == Decimal("1.00"))


def test_to_open_the_export_makes_nothing(admin_client, page):
    admin_client.post(EXPORT, {"kind": "pdf"})

    assert page(EXPORT).count("Make the file") == 2
    assert [export_orders.cached.peek(year=YEAR, kind=kind).status for kind in exports.KINDS] == [Status.ABSENT] * 2


def test_an_export_has_all_orders_and_a_name_that_says_what_it_is(worker, order_from, admin_client, page, until):
    orders = [order_from() for _ in range(3)]

    assert "<progress" in admin_client.post(EXPORT, {"kind": "xlsx"}).content.decode()
    until(lambda: "Download" in page(EXPORT))
    file = admin_client.get(XLSX)

    assert file["Content-Type"] == "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    assert file["Content-Disposition"] == f'attachment; filename="orders-{YEAR}.xlsx"'
    assert "no-store" in file["Cache-Control"]
    title, *rows = sheet(b"".join(file.streaming_content)).iter_rows(values_only=True)
    assert title == ("Order", "Placed", "Customer", "Item", "Amount")
    assert [row[0] for row in rows] == [order.pk for order in orders]
    assert rows[0][2:] == ("Ines Carvalho", "a teapot", 34.9)
    assert page(EXPORT).count("Make the file") == 1, "the other file is another one"


def test_the_same_export_is_there_with_commas(worker, order_from, admin_client, page, until):
    order = order_from()

    admin_client.post(EXPORT, {"kind": "csv"})
    until(lambda: "Download" in page(EXPORT))
    file = admin_client.get(CSV)

    assert file["Content-Type"] == "text/csv; charset=utf-8"
    assert file["Content-Disposition"] == f'attachment; filename="orders-{YEAR}.csv"'
    placed = timezone.localtime(order.placed_at)
    assert b"".join(file.streaming_content).decode() == (
        "\ufeffOrder,Placed,Customer,Item,Amount\r\n"
        f"{order.pk},{placed:%Y-%m-%d %H:%M:%S},Ines Carvalho,a teapot,34.90\r\n"
    )


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1+1", "\uff1d1+1", "#N/A"])
def test_a_name_that_looks_like_a_formula_stays_a_name(order_from, name):
    Customer.objects.filter(pk=order_from().customer_id).update(name=name)

    cell = sheet(made("xlsx")).cell(2, 3)

    assert (cell.data_type, cell.value) == ("s", name)
    assert bool(cell.quotePrefix) is (name[0] in "=+-@\t\uff1d")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("=1+1", "'=1+1"),
        ("  =1+1", "'  =1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1+1", "'\t=1+1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ('Ines, "the first"', 'Ines, "the first"'),
    ],
)
def test_a_name_that_looks_like_a_formula_gets_an_apostrophe_among_commas(order_from, name, text):
    order = order_from()
    Customer.objects.filter(pk=order.customer_id).update(name=name)
    Order.objects.update(amount=Decimal("-5.00"))

    _, row = csv.reader(made("csv").decode("utf-8-sig").splitlines())

    assert row[2] == text
    assert row[4] == "-5.00", "a number is none"


def test_what_is_too_much_for_a_sheet_goes_on_in_the_next(order_from, monkeypatch):
    monkeypatch.setattr(sheets, "ROWS_PER_SHEET", 2)
    orders = [order_from() for _ in range(5)]

    workbook = openpyxl.load_workbook(BytesIO(made("xlsx")))

    assert workbook.sheetnames == [f"Orders {YEAR}", f"Orders {YEAR} (2)", f"Orders {YEAR} (3)"]
    assert {page["A1"].value for page in workbook} == {"Order"}
    assert [row[0] for page in workbook for row in page.iter_rows(min_row=2, values_only=True)] == [
        order.pk for order in orders
    ]


def test_an_export_of_nothing_has_its_titles():
    assert [cell.value for cell in sheet(made("xlsx"))[1]] == [title for title, _ in exports.COLUMNS]
    assert made("csv").decode("utf-8-sig") == "Order,Placed,Customer,Item,Amount\r\n"


def test_a_name_with_what_excel_can_not_read_loses_that_alone(order_from):
    Customer.objects.filter(pk=order_from().customer_id).update(name="Ines\x0b\x01 Carvalho")

    assert sheet(made("xlsx")).cell(2, 3).value == "Ines Carvalho"


def test_progress_is_told_as_rows_are_written(order_from):
    told = []
    for _ in range(3):
        order_from()

    assert [len(batch) for batch in Order.objects.in_batches(2)] == [2, 1]
    exports.make_file(YEAR, "csv", lambda *said: told.append(said))

    assert told == [(3, 3, "3 of 3 orders")]


def test_a_file_that_is_gone_is_offered_no_more(worker, order_from, admin_client, page, until):
    order_from()
    admin_client.post(EXPORT, {"kind": "xlsx"})
    until(lambda: "Download" in page(EXPORT))

    storages["exports"].delete(export_orders.cached.peek(year=YEAR, kind="xlsx").value["file"])

    assert "Make the file" in page(EXPORT)
    assert admin_client.get(XLSX)["Location"] == EXPORT


def test_files_that_no_page_offers_any_more_are_deleted(order_from, monkeypatch):
    name = exports.make_file(YEAR, "csv", ignored)["file"]

    delete_old_exports()
    assert storages["exports"].exists(name)

    later = timezone.now() + exports.KEPT_FOR
    monkeypatch.setattr(timezone, "now", lambda: later)
    delete_old_exports()
    assert not storages["exports"].exists(name)


def test_two_runs_that_delete_at_once_are_no_error(monkeypatch):
    for _ in range(2):
        exports.make_file(YEAR, "csv", ignored)
    listdir = storages["exports"].listdir

    def list_for_both(folder):
        folders, names = listdir(folder)
        for name in names:  # which the other run deletes now
            storages["exports"].delete(name)
        return folders, names

    monkeypatch.setattr(storages["exports"], "listdir", list_for_both)
    delete_old_exports()

    assert listdir("") == ([], [])


def test_an_export_that_fails_leaves_nothing_behind(order_from, monkeypatch, settings):
    order_from()
    monkeypatch.setattr(tempfile, "tempdir", str(settings.VAR_DIR / "elsewhere"))
    (settings.VAR_DIR / "elsewhere").mkdir()

    def fail(*progress):
        [sheet] = (settings.VAR_DIR / "unfinished").glob("*/*")
        assert stat.S_IMODE(sheet.parent.stat().st_mode) == 0o700
        raise OSError("the database is down")

    with pytest.raises(OSError, match="down"):
        exports.make_file(YEAR, "xlsx", fail)

    assert not list((settings.VAR_DIR / "unfinished").iterdir())
    assert not list((settings.VAR_DIR / "elsewhere").iterdir())


def test_what_a_worker_that_was_killed_has_left_is_deleted(monkeypatch, settings):
    left = settings.VAR_DIR / "unfinished" / "left"
    left.mkdir(parents=True)
    (left / "1").write_text("Ines Carvalho")

    delete_old_exports()
    assert left.exists(), "it may be one that is being written"

    later = timezone.now() + exports.KEPT_FOR
    monkeypatch.setattr(timezone, "now", lambda: later)
    delete_old_exports()
    assert not left.exists()


def test_files_are_kept_for_longer_than_they_are_offered():
    assert exports.KEPT_FOR > exports.OFFERED_FOR


def made(kind):
    with storages["exports"].open(exports.make_file(YEAR, kind, ignored)["file"]) as file:
        return file.read()


def ignored(*progress):
    pass


def sheet(content):
    return openpyxl.load_workbook(BytesIO(content)).active
