"""The admin in a real browser: what an operator sees and presses, with and without JavaScript."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model

from django_taskkit.models import DeadLetter

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LIST = "/admin/django_taskkit/deadletter/"


@pytest.fixture
def cured():
    return []


@pytest.fixture
def letters(station, cured):
    """Three dead letters; their tasks succeed once something is in ``cured``."""

    @station.app.task(name="shop.tasks.send_receipt")
    def send_receipt(order_id, customer=None, api_token=None):
        if not cured:
            raise ValueError(f"order {order_id} has no <b>e-mail</b> address " + "x" * 300)

    for number in range(3):
        send_receipt.delay(number, {"name": "Đỗ Văn", "card_number": "4111"}, api_token="hunter2")
    station.run_all()
    return DeadLetter.objects.order_by("pk")


@pytest.fixture(params=[True, False], ids=["with JavaScript", "without JavaScript"])
def page(request, chromium, live_server, letters):
    get_user_model().objects.create_superuser("ann", password="secret")
    context = chromium.new_context(
        base_url=live_server.url, java_script_enabled=request.param, viewport={"width": 1280, "height": 900}
    )
    context.set_default_timeout(15_000)
    page = context.new_page()
    page.goto(f"/admin/login/?next={LIST}")
    page.fill("#id_username", "ann")
    page.fill("#id_password", "secret")
    page.click("[type=submit]")
    page.wait_for_selector("#result_list")
    page.uses_javascript = request.param
    yield page
    context.close()


def statuses():
    return [letter.status for letter in DeadLetter.objects.order_by("pk")]


def test_an_operator_reads_a_dead_letter_and_puts_it_back(page, shots, station, letters, cured):
    shots(page, f"list-{page.uses_javascript}")
    page.click("#result_list tbody tr:last-child th a")

    text = page.inner_text("#content")
    assert "order 0 has no <b>e-mail</b> address" in text
    assert "Traceback (most recent call last):" in text
    assert "Đỗ Văn" in text
    assert "4111" not in page.content()
    assert "hunter2" not in page.content()
    shots(page, f"detail-{page.uses_javascript}")

    cured.append(True)
    page.click("text=Requeue")
    assert "Requeue 1 dead letter?" in page.inner_text("#content")
    shots(page, f"confirm-{page.uses_javascript}")
    page.click("input[type=submit][value=Requeue]")

    assert "1 dead letter was requeued." in page.inner_text(".messagelist")
    station.run_all()
    page.reload()
    assert "recovered" in page.inner_text("#content")
    shots(page, f"recovered-{page.uses_javascript}")
    assert statuses() == ["recovered", "dead", "dead"]


def test_an_operator_discards_a_selection_by_keyboard(page, shots):
    page.focus("#result_list tbody tr:first-child input[type=checkbox]")
    page.keyboard.press("Space")
    page.select_option("select[name=action]", "discard_selected")
    page.focus("button[name=index]")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Discard 1 dead letter?")
    shots(page, f"discard-{page.uses_javascript}")
    page.fill("#id_note", "the customer was called")
    page.focus("input[type=submit][value=Discard]")
    page.keyboard.press("Enter")

    page.wait_for_selector("text=1 dead letter was discarded.")
    assert statuses().count("discarded") == 1


def test_the_pages_are_wide_enough_for_what_they_show(page):
    page.click("#result_list tbody tr:last-child th a")

    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_an_operator_edits_an_argument_and_puts_it_back(page, shots, station, settings, letters, cured):
    settings.TASKKIT = {"EDITABLE": ["shop.tasks.*"]}
    cured.append(True)
    page.click("#result_list tbody tr:last-child th a")
    shots(page, f"verdict-{page.uses_javascript}")
    page.click("text=Edit")
    assert "hunter2" not in page.content()
    assert "4111" not in page.content()
    shots(page, f"edit-{page.uses_javascript}")
    page.get_by_label("order_id:").fill("x")
    page.click("input[type=submit][value=Save]")
    assert "This is not JSON" in page.inner_text(".errorlist")
    shots(page, f"edit-error-{page.uses_javascript}")
    page.get_by_label("order_id:").fill("42")
    page.get_by_label("Note:").fill("wrong order")
    page.click("input[type=submit][value='Save and requeue']")

    told = page.inner_text(".messagelist")
    assert "The arguments were changed." in told
    assert "1 dead letter was requeued." in told
    shots(page, f"edited-{page.uses_javascript}")
    station.run_all()
    page.reload()
    assert "order_id: 0 → 42" in page.inner_text("#content")
    assert statuses() == ["recovered", "dead", "dead"]
    args, kwargs, _embed = letters.first().envelope.payload()
    assert (args, kwargs) == ([42, {"name": "Đỗ Văn", "card_number": "4111"}], {"api_token": "hunter2"})


def test_an_operator_hears_what_would_fail_again(page, shots, letters):
    DeadLetter.objects.filter(pk=letters.first().pk).update(body=b"[[], {}, {}]")
    page.check("#action-toggle") if page.uses_javascript else [
        box.check() for box in page.query_selector_all("input.action-select")
    ]
    page.select_option("select[name=action]", "requeue_selected")
    page.click("button[name=index]")
    page.wait_for_selector("text=Requeue 3 dead letters?")

    assert "missing a required argument: 'order_id'" in page.inner_text(".taskkit-preflight")
    shots(page, f"preflight-{page.uses_javascript}")
    page.click("input[type=submit][value=Requeue]")

    told = page.inner_text(".messagelist")
    assert "2 dead letters were requeued." in told
    assert "1 dead letter was left out, since it would fail again." in told


def test_the_form_fits_a_narrow_window(page, shots, settings, letters):
    settings.TASKKIT = {"EDITABLE": ["*"]}
    page.set_viewport_size({"width": 420, "height": 800})
    page.goto(f"{LIST}{letters.first().pk}/edit/")
    shots(page, f"narrow-{page.uses_javascript}")

    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
