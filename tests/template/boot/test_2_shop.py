"""What an operator lives through in Chromium, and what the world gets of it."""

import pytest
from openpyxl import load_workbook
from PIL import Image

from tests.live.waiting import wait_until
from tests.template.boot.booted import PASSWORD, PATIENCE

LETTERS = "/admin/django_taskkit/deadletter/"


def test_an_order_without_an_address_dies_and_comes_back(site, window):
    page = window.log_in()
    window.shot("admin")
    page.goto("/admin/orders/customer/add/")
    page.fill("#id_name", "Mira Holm")
    page.fill("#id_postcode", "2200")
    page.click("input[name=_save]")
    page.goto("/admin/orders/order/add/")
    page.click(".field-customer .select2-selection")
    page.fill(".select2-search__field", "Mira")
    page.click(".select2-results__option:has-text('Mira Holm')")
    page.fill("#id_item", "a kettle")
    page.fill("#id_amount", "59.50")
    with page.expect_response(lambda response: response.request.method == "POST") as placed:
        page.click("input[name=_save]")
    request_id = placed.value.headers["x-request-id"]
    order = site.ask("order_of('a kettle')")

    site.wait("letters('orders.tasks.send_receipt', order, 'dead')", "a dead letter", order=order)
    page.goto(LETTERS)
    assert "NoEmailAddressError" in page.inner_text("#result_list")
    window.shot("dead-letters")
    page.click("#result_list tbody tr:first-child th a")
    assert "has no e-mail address" in page.inner_text("#content")
    assert "boot-1" in page.inner_text("#content")
    window.shot("dead-letter")
    letter = page.url

    page.goto("/admin/orders/customer/")
    page.click("#result_list >> text=Mira Holm")
    page.fill("#id_email", "mira@shop.example")
    page.click("input[name=_save]")
    page.goto(letter)
    page.click("text=Requeue")
    assert "Requeue 1 dead letter?" in page.inner_text("#content")
    window.shot("requeue")
    page.click("input[type=submit][value=Requeue]")
    assert "1 dead letter was requeued." in page.inner_text(".messagelist")
    window.reload_until("recovered")
    window.shot("recovered")

    assert site.mail.subjects(f"Your receipt for order {order}") == [f"Your receipt for order {order}"]
    assert_the_request_is_in_the_log(site, request_id)


def assert_the_request_is_in_the_log(site, request_id):
    """From the web by the relay and the broker to the worker, through death and requeue."""
    lines = [line for line in site.worker("customers").records() if line.get("request_id") == request_id]
    tasks = {line.get("task") for line in lines}
    assert {"orders.tasks.send_receipt", "orders.tasks.book_shipment"} <= tasks
    assert all(line["task_id"] and line["lane"] == "customers" for line in lines)


def test_orders_in_number_end_well_or_as_dead_letters(site, window):
    site.manage("place_demo_orders")

    site.wait("letters('orders.tasks.send_receipt', None, 'dead') == 2", "two receipts can't be sent")
    site.wait("letters('orders.tasks.book_shipment', None, 'dead') == 2", "two parcels can't be booked")
    site.wait("unsettled() == []", "every order has its receipt and its parcel, or a dead letter")
    page = window.log_in("/admin/orders/order/")
    window.shot("orders")
    page.goto(LETTERS)
    window.shot("four-dead-letters")


def test_the_report_of_the_year_comes_to_its_end(site, window):
    site.manage("place_past_orders", "3000")
    page = window.log_in("/")
    window.shot("start")
    page.click("text=Sales of >> nth=0")
    page.wait_for_selector("table caption >> text=By month", timeout=PATIENCE * 1000)
    window.shot("sales")

    assert "Best customers" in page.inner_text("main")


def test_an_export_shows_how_far_it_is_and_is_fetched(site, window, tmp_path):
    site.manage("place_past_orders", "80000")  # enough to be seen under way on an idle machine
    page = window.log_in("/")
    page.click("text=as a file >> nth=0")
    page.click("button[value=xlsx]")
    page.wait_for_function(
        "() => { const bar = document.querySelector('.taskkit-bar'); return bar && bar.value > 0 && bar.value < 100 }",
        timeout=PATIENCE * 1000,
    )
    window.shot("export-under-way")
    page.wait_for_selector("text=Download", timeout=PATIENCE * 1000)
    window.shot("export")
    with page.expect_download() as download:
        page.click("text=Download")
    download.value.save_as(tmp_path / "orders.xlsx")

    book = load_workbook(tmp_path / "orders.xlsx", read_only=True)
    rows = sum(1 for _ in book.active.iter_rows()) - 1
    assert f"{rows:,} orders" in page.inner_text("main")
    assert rows > 5_000


def test_a_photo_becomes_thumbnails(site, window, tmp_path):
    """A chord: three tasks side by side, and a fourth when all are done."""
    Image.effect_mandelbrot((1600, 1200), (-2, -1.2, 1, 1.2), 60).save(tmp_path / "teapot.png")
    page = window.log_in("/admin/orders/product/add/")
    page.fill("#id_name", "Teapot")
    page.set_input_files("#id_photo", tmp_path / "teapot.png")
    page.click("input[name=_save]")

    site.wait("is_ready('Teapot')", "the thumbnails are there")
    page.goto("/admin/orders/product/")
    page.wait_for_function("() => { const i = document.querySelector('#result_list img'); return i && i.naturalWidth }")
    page.click("#result_list >> text=Teapot")
    page.wait_for_url("**/change/")
    page.wait_for_selector(".field-thumbnails")
    kind = "fetch(one.href).then((answer) => answer.headers.get('Content-Type'))"
    kinds = page.eval_on_selector_all(".field-thumbnails a", f"all => Promise.all(all.map((one) => {kind}))")
    assert kinds == ["image/jpeg"] * 3
    window.shot("product")


def test_a_month_is_closed_once_and_mailed_once(site):
    """A chain of three tasks, started twice."""
    site.ask("close(2026, 3)")
    site.ask("close(2026, 3)")

    site.wait("['2026-03', True] in closings()", "March is closed and mailed")
    wait_until(lambda: site.mail.subjects("Shop: closing of 2026-03"), PATIENCE, "the mail arrives")


def test_beat_sends_what_is_due(site, window):
    if site.variant.scheduler == "django-celery-beat":
        page = window.log_in("/admin/django_celery_beat/periodictask/")
        assert "nightly digest" in page.inner_text("#result_list")
        window.shot("schedule")
        site.ask("schedule_something_soon()")

    def has_run():
        records = site.worker("default").records()
        done = [record for record in records if record.get("task") == "orders.tasks.clear_sessions"]
        return [record for record in done if "succeeded" in record["message"]]

    run = wait_until(has_run, PATIENCE, "what beat has sent is done", interval=0.5)[0]
    assert run["lane"] == "default"
    assert "request_id" not in run  # nobody has asked for it


def test_flower_is_for_who_knows_the_password(site, chromium):
    if site.variant.flower == "no":
        pytest.skip("this variant has no Flower")
    wait_until(lambda: site.get("/", port="flower")[0] == 401, PATIENCE, "Flower asks who is there", interval=0.5)
    assert site.get("/api/workers", port="flower")[0] == 401
    context = chromium.new_context(
        base_url=f"http://127.0.0.1:{site.ports['flower']}",
        http_credentials={"username": "ann", "password": PASSWORD},
        viewport={"width": 1280, "height": 900},
    )
    page = context.new_page()

    def all_are_there():
        assert page.goto("/").status == 200
        page.wait_for_load_state("networkidle")
        return "of 4 workers" in page.inner_text("body")

    wait_until(all_are_there, PATIENCE, "Flower shows the four workers", interval=1)
    page.screenshot(path=site.kept / "flower.png", full_page=True)
    context.close()


def test_numbers_are_there_for_prometheus(site):
    if site.variant.observability != "prometheus":
        pytest.skip("this variant counts nothing for Prometheus")
    assert site.get("/metrics", **{"X-Forwarded-Proto": "https"})[0] in (302, 401, 403)
    token = site.environment["TASKKIT_METRICS_TOKEN"]

    status, text = site.get("/metrics", **{"X-Forwarded-Proto": "https", "Authorization": f"Bearer {token}"})

    assert status == 200
    assert "taskkit_" in text
    assert "taskkit_lane_messages" in site.get("/metrics", port="exporter")[1]
    workers = [name for name in site.ports if name.startswith("worker-")]
    assert len(workers) == 4
    for name in workers:
        assert site.get("/metrics", port=name)[0] == 200
    assert 'task="orders.tasks.send_receipt"' in site.get("/metrics", port="worker-customers")[1]


def test_numbers_and_traces_go_to_the_collector(site):
    if site.variant.observability != "opentelemetry":
        pytest.skip("this variant sends nothing to a collector")
    site.wait("unsettled() == []", "every order is settled")

    def both_are_there():
        numbers, traces = (site.collector.taken.get(path, b"") for path in ("/v1/metrics", "/v1/traces"))
        return (
            b"taskkit" in numbers and b"orders.tasks.send_receipt" in traces and b"orders.tasks.send_receipt" in numbers
        )

    wait_until(both_are_there, PATIENCE, "numbers and traces arrive", interval=0.5)
