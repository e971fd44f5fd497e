"""What a person would do in the admin, step by step. Each step says what it saw, or what was not so."""

from __future__ import annotations

import email
import email.policy
import io
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from browser import Browser, Element, Page, PageError

LETTERS = "/admin/django_taskkit/deadletter/"
RECEIPT, SHIPMENT = "orders.tasks.send_receipt", "orders.tasks.book_shipment"
PATIENCE = 60  # seconds for what a worker does meanwhile
FORMULA = "=SUM(1,1) Teas"  # the name of a customer


def check(fact: object, otherwise: str) -> None:
    if not fact:
        raise PageError(otherwise)


class Story:
    """The steps, in the order of `STEPS`; later ones build on what earlier ones found."""

    def __init__(self, address: str, username: str, password: str, mails: Path):
        self.browser = Browser(address)
        self.username = username
        self.password = password
        self.mails = mails
        self.letter_url = ""
        self.order_id = ""
        self.sold = ""
        self.file_url = ""

    def log_in(self) -> str:
        page = self.browser.open("/admin/")
        form = page.first("form", id="login-form")
        page = self.browser.submit(page, form, username=self.username, password=self.password)
        check(page.url.endswith("/admin/"), f"the login leads to {page.url}")
        check("Dead letters" in page.text, "the admin's index has no dead letters")
        return f"as {self.username}"

    def see_the_dead(self) -> str:
        """Four of the twelve tasks die; two of them take all their retries to."""
        self._poll(lambda: len(self._letters("status__exact=dead")) >= 4, "four dead letters")
        rows = self._letters("status__exact=dead")
        names = sorted(row.first(class_="field-task").first("a").text.split()[0] for row in rows)
        check(names == [SHIPMENT] * 2 + [RECEIPT] * 2, f"dead are {names}")
        return "4 of 12 tasks are dead letters: two receipts, two shipments"

    def read_one(self) -> str:
        row = self._letters(f"task_name={RECEIPT}")[-1]
        page = self.browser.open(row.first(class_="field-task").first("a").attributes["href"])
        self.letter_url = page.url.partition("?")[0]
        check("NoEmailAddressError" in page.field("exception_class"), "the exception's class is not shown")
        check("no e-mail address" in page.field("exception_message"), "the exception's message is not shown")
        check("in send_receipt" in page.field("shown_traceback"), "the traceback lacks the task's line")
        arguments = dict(_table(page.first(class_="field-shown_arguments")))
        self.order_id = arguments.get("order_id", "")
        check(self.order_id.isdecimal(), f"the arguments are {arguments}")
        check(page.field("attempts") == "1", f"{page.field('attempts')} attempts for what no retry can mend")
        return f"NoEmailAddressError, traceback, order_id={self.order_id}"

    def mend_the_cause(self) -> str:
        page = self.browser.open(f"/admin/orders/order/{self.order_id}/change/")
        page = self.browser.follow(page, page.first(class_="field-customer").first("a"))
        return self._change_customer(page, email=self._address(self.order_id))

    def requeue_it(self) -> str:
        page = self.browser.open(self.letter_url)
        page = self.browser.follow(page, self._link(page, "/requeue/"))
        check("Requeue 1 dead letter?" in page.text, f"the confirmation asks: {page.text[:200]}")
        page = self.browser.submit(page, self._confirmation(page))
        check(page.url == self.letter_url, f"the confirmation leads to {page.url}")
        return page.first(class_="messagelist").text

    def see_it_recovered(self) -> str:
        self._poll(lambda: self._open_letter().field("status") == "recovered", "the status recovered")
        events = [cell.text for cell in self._open_letter().all("td", class_="field-kind")]
        check(events == ["died", "requeued", "recovered"], f"the history says {events}")
        return "history: " + ", ".join(events)

    def find_the_mail(self) -> str:
        address = self._address(self.order_id)
        found = [mail for mail in self._mails() if mail["To"] == address]
        check(len(found) == 1, f"{len(found)} receipts for {address}")
        return f"{found[0]['Subject']!r} to {address}"

    def see_what_recovered_by_itself(self) -> str:
        """Parcels that the carrier was too busy for twice are booked, and left no dead letter."""
        page = self.browser.open("/admin/orders/shipment/")
        attempts = [cell.text for cell in page.all("td", class_="field-attempts")]
        check(attempts == ["3"] * 4, f"the shipments took {attempts} attempts")
        letters = len(self._letters(f"task_name={SHIPMENT}"))
        check(letters == 2, f"{letters} dead letters of shipments, not only those of the unknown postcodes")
        receipts = len([mail for mail in self._mails() if str(mail["Subject"]).startswith("Your receipt")])
        check(receipts == 5, f"{receipts} receipts: 4 at once and 1 after its requeue would be right")
        return "4 parcels booked at attempt 3, no dead letter for them; 4 receipts sent at once"

    def see_retries_exhausted(self) -> str:
        rows = self._letters("reason__exact=retries_exhausted")
        check(len(rows) == 2, f"{len(rows)} dead letters have run out of retries")
        for row in rows:
            check(SHIPMENT in row.first(class_="field-task").text, f"one is {row.text}")
            check("UnknownPostcodeError" in row.first(class_="field-exception").text, f"one is {row.text}")
            check(row.first(class_="field-attempts").text == "4", f"one had not 4 attempts: {row.text}")
        return "2 unknown postcodes, dead after 4 attempts each"

    def requeue_a_selection(self) -> str:
        """Mend both postcodes, tick both rows, and put them back with the list's own action."""
        rows = self._letters("reason__exact=retries_exhausted")
        for row in rows:
            letter = self.browser.open(row.first(class_="field-task").first("a").attributes["href"])
            order_id = dict(_table(letter.first(class_="field-shown_arguments")))["order_id"]
            page = self.browser.open(f"/admin/orders/order/{order_id}/change/")
            page = self.browser.follow(page, page.first(class_="field-customer").first("a"))
            self._change_customer(page, postcode="1400")
        page = self.browser.open(f"{LETTERS}?reason__exact=retries_exhausted")
        boxes = page.all("input", class_="action-select")
        ticked = [("_selected_action", box.attributes["value"]) for box in boxes]
        form = page.first("form", id="changelist-form")
        page = self.browser.submit(page, form, ticked, action="requeue_selected")
        check("Requeue 2 dead letters?" in page.text, f"the confirmation asks: {page.text[:200]}")
        page = self.browser.submit(page, self._confirmation(page))
        said = page.first(class_="messagelist").text
        recovered = f"status__exact=recovered&task_name={SHIPMENT}"
        self._poll(lambda: len(self._letters(recovered)) == 2, "both shipments to recover")
        return f"{said} Both recovered, with all their retries again"

    def see_the_report_made(self) -> str:
        """Open last year's sales, of which every day has orders, and wait as the page's script does."""
        page = self.browser.open("/")
        page = self.browser.follow(page, self._links(page, "Sales of ")[1])
        check(not any(page.all("table")), "the report is there before anybody has asked for it")
        page, said = self._follow_bar(page)
        months, customers = page.all("table")
        check(len(list(months.first("tbody").all("tr"))) == 12, f"the months are {months.text}")
        check(FORMULA in customers.text, f"the customers are {customers.text}")
        self.sold = months.first("tfoot").first("td").text
        again = self.browser.open(page.url)
        check(self.sold in again.text and not any(again.all("progress")), "the report is not kept")
        return f"{said}; {self.sold} orders in 12 months"

    def see_an_export_made(self) -> str:
        page = self.browser.open("/")
        page = self.browser.follow(page, self._links(page, "Orders of ")[1])
        check(not self._links(page, "Download"), "there is a file before anybody has asked for it")
        forms = [form for form in page.first("main").all("form") if any(form.all("button", value="xlsx"))]
        check(len(forms) == 1, f"there are {len(forms)} buttons for an Excel file")
        page, said = self._follow_bar(self.browser.submit(page, forms[0], [("kind", "xlsx")]))
        self.file_url = self._links(page, "Download")[0].attributes["href"]
        return said

    def open_the_file(self) -> str:
        """Download it, and look into it as Excel would: every order is a row, and no name has become a formula."""
        name, content = self.browser.download(self.file_url)
        check(name.startswith("orders-") and name.endswith(".xlsx"), f"the file is called {name}")
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            sheet = file.read("xl/worksheets/sheet1.xml").decode()
        rows = sheet.count("<row ") - 1
        check(f"{rows:,}" == self.sold, f"{rows} rows in the file, {self.sold} orders in the report")
        check(FORMULA in sheet and "<f>" not in sheet, f"{FORMULA} is a formula in the file")
        return f"{name}, {rows} rows, {len(content) // 1024} KB"

    def _follow_bar(self, page: Page) -> tuple[Page, str]:
        """Ask how far it is, as the page's script does; return the page that it leads to, and what the bar has said."""
        deadline, said = time.monotonic() + PATIENCE, []
        while True:
            bar = page.first(class_="taskkit-now")
            if "data-taskkit-go" in bar.attributes:
                return self.browser.open(bar.attributes["data-taskkit-go"]), f"the bar said {', '.join(said)}"
            percent = [element.text for element in bar.all(class_="taskkit-percent")]
            text = percent[0] if percent else bar.first(class_="taskkit-text").text
            said += [text] if text not in said else []
            check("data-taskkit-url" in bar.attributes, f"the bar has stopped: {bar.text}")
            check(time.monotonic() < deadline, f"waited {PATIENCE} seconds for what the bar shows, in vain")
            time.sleep(float(bar.attributes["data-taskkit-every"]))
            page = self.browser.open(bar.attributes["data-taskkit-url"])

    def _letters(self, query: str) -> list[Element]:
        page = self.browser.open(f"{LETTERS}?{query}")
        tables = list(page.all("table", id="result_list"))
        return list(tables[0].first("tbody").all("tr")) if tables else []

    def _open_letter(self) -> Page:
        return self.browser.open(self.letter_url)

    def _change_customer(self, page: Page, **values: str) -> str:
        form = page.first("form", id="customer_form")
        page = self.browser.submit(page, form, [("_save", "Save")], **values)
        check("was changed successfully" in page.text, f"the customer was not saved: {page.text[:200]}")
        return ", ".join(f"{name} = {value}" for name, value in values.items())

    def _confirmation(self, page: Page) -> Element:
        for form in page.all("form"):
            if any(field.attributes.get("name") == "confirmed" for field in form.all("input")):
                return form
        raise PageError(f"{page.url} has no form to confirm with")

    def _link(self, page: Page, end: str) -> Element:
        for link in page.all("a"):
            if link.attributes.get("href", "").endswith(end):
                return link
        raise PageError(f"{page.url} has no link to {end}")

    def _links(self, page: Page, text: str) -> list[Element]:
        return [link for link in page.all("a") if link.text.startswith(text)]

    def _mails(self) -> list[email.message.Message]:
        """Return all mails; Django puts several of one second into one file, with a line of dashes after each."""
        texts = [file.read_text(encoding="utf-8") for file in sorted(self.mails.glob("*.log"))]
        parts = [part.strip() for text in texts for part in text.split("-" * 79)]
        return [email.message_from_string(part, policy=email.policy.default) for part in parts if part]

    @staticmethod
    def _address(order_id: str) -> str:
        return f"customer-of-order-{order_id}@example.org"

    @staticmethod
    def _poll(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            check(time.monotonic() < deadline, f"waited {PATIENCE} seconds for {what}, in vain")
            time.sleep(0.5)


def _table(element: Element) -> list[tuple[str, str]]:
    """Return name and value of each row."""
    return [(row.first("th").text, row.first("td").text) for row in element.all("tr")]


STEPS: list[tuple[str, Callable[[Story], str]]] = [
    ("log in", Story.log_in),
    ("find what died", Story.see_the_dead),
    ("open a receipt that died", Story.read_one),
    ("fill in the customer's e-mail", Story.mend_the_cause),
    ("requeue the receipt", Story.requeue_it),
    ("see it recovered", Story.see_it_recovered),
    ("find the receipt in the mails", Story.find_the_mail),
    ("see what recovered by retrying", Story.see_what_recovered_by_itself),
    ("see what ran out of retries", Story.see_retries_exhausted),
    ("mend and requeue both at once", Story.requeue_a_selection),
    ("open a report, see it made", Story.see_the_report_made),
    ("ask for an Excel file", Story.see_an_export_made),
    ("open the Excel file", Story.open_the_file),
]
