"""Progress bars in a real browser: real tasks, real polls, with htmx, with the shipped script, and with neither."""

from __future__ import annotations

import os
import re
import threading
import zlib

import pytest
from django.core.cache import cache
from django.db import connections
from django.http import HttpResponse

from django_taskkit.results import ResultCache, set_progress
from tests.browser import progress_site
from tests.browser.progress_site import Site, redirect_to_log_in

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PATIENCE = 15
"""Seconds in which a page, or a thread, does what it should."""

SECRET = "no route to 10.0.0.7 as hunter2"

HTMX = ("2", "4", *(["1"] if "TASKKIT_TEST_HTMX_1" in os.environ else []))

WATCH = """
    window.said = [];
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective));
    document.addEventListener("DOMContentLoaded", () => {
        for (const region of document.querySelectorAll("[role=status]"))
            new MutationObserver(() => window.said.push(region.textContent.trim()))
                .observe(region, { childList: true, characterData: true, subtree: true });
    });
"""


class Task:
    """A task that goes as far as the test lets it."""

    def __init__(self, app, name, total=4):
        self.total = total
        self.may_go_on = threading.Semaphore(0)
        self.error = None
        self.runs = 0

        @app.task(name=f"shop.tasks.{name}")
        def run():
            self.runs += 1
            for done in range(1, self.total + 1):
                assert self.may_go_on.acquire(timeout=PATIENCE), "the test has forgotten this task"
                if self.error:
                    raise self.error
                set_progress(done, self.total, f"sheet <{done}>")
            assert self.may_go_on.acquire(timeout=PATIENCE), "the test has forgotten this task"
            return f"the {name} are good"

        self.cache = ResultCache(run, timeout=300)

    def go_on(self, steps=1):
        self.may_go_on.release(steps)


@pytest.fixture
def site(settings, monkeypatch):
    settings.ROOT_URLCONF = progress_site.__name__
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": os.urandom(8).hex()}
    }
    fresh = Site()
    monkeypatch.setattr(progress_site, "site", fresh)
    return fresh


@pytest.fixture
def work(station):
    """Run what waits, in a thread of its own; call it again for what is sent later."""
    threads = []

    def run():
        try:
            station.run_all()
        finally:
            connections.close_all()

    def start():
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        threads.append(thread)

    yield start
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def sales(station, site, work):
    task = Task(station.app, "sales")
    site.caches["sales"] = task.cache
    yield task
    task.go_on(100)


@pytest.fixture
def stock(station, site, work):
    task = Task(station.app, "stock", total=2)
    site.caches["stock"] = task.cache
    yield task
    task.go_on(100)


@pytest.fixture
def browse(chromium, live_server, site):
    """Open a page in a window of its own."""
    contexts = []

    def browse(address, **options):
        context = chromium.new_context(
            base_url=live_server.url, **{"viewport": {"width": 1280, "height": 900}, **options}
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        context.add_init_script(WATCH)
        page = context.new_page()
        page.goto(address)
        return page

    yield browse
    for context in contexts:
        context.close()


def text(page, words, *, timeout=PATIENCE):
    page.get_by_text(words).first.wait_for(timeout=timeout * 1000)


def until(page, script):
    wait(page, lambda: page.evaluate(script))  # wait_for_function() needs a policy that allows eval


def comes_to(page, value):
    until(page, f"document.querySelector('progress')?.value === {value}")


def polls(page, site, more=3):
    """Wait for so many polls from now on."""
    before = len(site.polls)
    wait(page, lambda: len(site.polls) >= before + more)


def wait(page, condition):
    for _ in range(PATIENCE * 20):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it does not come true")


def is_quiet(page, site):
    """No poll comes any more, in five times the time in which one would."""
    before = len(site.polls)
    page.wait_for_timeout(1000)
    return len(site.polls) == before


def way(name):
    return f"&htmx={name}" if name else ""


WAYS = pytest.mark.parametrize("htmx", [None, *HTMX], ids=lambda name: f"htmx {name}" if name else "script")


# -- the whole way


@WAYS
def test_a_bar_follows_its_task_and_the_page_has_the_value_in_the_end(browse, site, sales, work, htmx, shots):
    page = browse(f"/report/?a=1{way(htmx)}")
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    bar = page.get_by_role("progressbar", name="Sales")
    text(page, "Waiting to start")
    assert bar.get_attribute("value") is None

    work()
    text(page, "Working")
    sales.go_on()
    comes_to(page, 25)
    text(page, "sheet <1>")
    shots(page, f"progress-{htmx or 'script'}")
    sales.go_on(2)
    comes_to(page, 75)
    said, violations = page.evaluate("[window.said, window.violations]")
    sales.go_on(2)
    text(page, "the sales are good")

    assert page.get_by_role("progressbar").count() == 0
    assert site.loads == [f"/report/?a=1{way(htmx)}"] * 2
    assert is_quiet(page, site)
    assert sales.runs == 1
    assert (violations, page.evaluate("window.violations"), errors) == ([], [], [])
    assert said[0] == "Sales: Working"
    assert said[-1] == "Sales: 75%"
    assert len(said) == len(set(said))  # nothing is said twice


def test_without_javascript_the_page_loads_itself_again(browse, site, sales, work, shots):
    page = browse("/report/", java_script_enabled=False)
    text(page, "Waiting to start")
    sales.go_on(2)
    work()
    wait(page, lambda: page.locator("progress").get_attribute("value") == "50")
    shots(page, "progress-nothing")
    sales.go_on(3)
    text(page, "the sales are good")
    loads = len(site.loads)

    page.wait_for_timeout(3000)  # a page that still had a refresh of two seconds would load again
    assert len(site.loads) == loads
    assert site.polls == []


@WAYS
def test_two_bars_of_a_page_go_their_own_ways(browse, site, sales, stock, work, htmx):
    page = browse(f"/two/?then=stay{way(htmx)}")
    first = page.get_by_role("progressbar", name="Sales")
    second = page.get_by_role("progressbar", name="Stock")
    first.wait_for()
    second.wait_for()

    work()  # one worker: one after the other
    sales.go_on(2)
    until(page, "document.querySelector('progress').value === 50")
    assert second.get_attribute("value") is None
    sales.go_on(3)
    text(page, "Done")
    assert first.count() == 0
    stock.go_on()
    until(page, "document.querySelector('progress').value === 50")
    stock.go_on(2)
    until(page, "document.querySelectorAll('progress').length === 0")

    assert len(site.loads) == 1
    assert is_quiet(page, site)


@WAYS
def test_a_task_that_fails_is_told_without_a_reason_and_that_is_all(browse, site, sales, work, htmx, shots):
    page = browse(f"/report/?a=1{way(htmx)}")
    sales.error = ValueError(SECRET)
    sales.go_on()
    work()
    text(page, "This could not be finished.")
    shots(page, f"progress-failed-{htmx or 'script'}")

    assert is_quiet(page, site)
    assert SECRET not in page.content()
    assert "ValueError" not in page.content()
    assert len(site.loads) == 1


@WAYS
def test_when_it_is_done_it_goes_where_the_page_wants(browse, site, sales, work, htmx):
    page = browse(f"/report/?then=/elsewhere/{way(htmx)}")
    sales.go_on(5)
    work()
    page.wait_for_selector("#elsewhere")

    assert site.loads[1:] == ["/elsewhere/"]


@WAYS
def test_a_page_that_never_shows_its_value_is_loaded_once_more_and_not_again(browse, site, sales, work, htmx):
    page = browse(f"/stubborn/?a=1{way(htmx)}")
    sales.go_on(5)
    work()
    page.get_by_role("link", name="Show the result").wait_for()

    assert is_quiet(page, site)
    assert len(site.loads) == 2


@WAYS
def test_a_page_that_takes_its_time_is_asked_for_once(browse, site, sales, work, htmx):
    page = browse(f"/report/?a=1{way(htmx)}")
    sales.go_on(5)
    site.slow = 1.5  # several polls would fit in
    work()
    text(page, "the sales are good")

    assert len(site.loads) == 2


def test_without_javascript_either(browse, site, sales, work):
    page = browse("/stubborn/", java_script_enabled=False)
    sales.go_on(5)
    work()
    page.get_by_role("link", name="Show the result").wait_for()
    loads = len(site.loads)

    page.wait_for_timeout(3000)
    assert len(site.loads) == loads


# -- trouble


@WAYS
def test_a_server_that_is_out_of_order_for_a_while_is_waited_for(browse, site, sales, work, htmx):
    page = browse(f"/report/?a=1{way(htmx)}")
    work()
    text(page, "Working")
    site.down = lambda: HttpResponse("<body><h1>Bad gateway</h1></body>", status=502)
    polls(page, site)
    assert page.get_by_role("progressbar", name="Sales").is_visible()
    assert "Bad gateway" not in page.content()
    if not htmx:
        text(page, "The server can't be reached just now. Trying again.")
    site.down = None
    sales.go_on()
    comes_to(page, 25)

    assert page.get_by_text("The server can't be reached").count() <= 1
    assert not page.locator(".taskkit-trouble").is_visible()


@WAYS
def test_a_network_that_is_away_for_a_while_is_waited_for(browse, site, sales, work, htmx):
    page = browse(f"/report/?a=1{way(htmx)}")
    work()
    text(page, "Working")
    page.context.set_offline(True)
    if htmx:
        page.wait_for_timeout(1000)
    else:
        text(page, "The server can't be reached just now.")
    sales.go_on()
    page.context.set_offline(False)
    comes_to(page, 25)

    assert not page.locator(".taskkit-trouble").is_visible()


def test_the_script_asks_ever_more_seldom_while_the_server_fails(browse, site, sales):
    page = browse("/report/")
    polls(page, site, 2)
    site.down = lambda: HttpResponse(status=500)
    polls(page, site, 5)
    pauses = [later - earlier for earlier, later in zip(site.polls[-4:], site.polls[-3:], strict=False)]

    assert pauses[-1] > 2 * pauses[0] > 0.2


def test_the_script_leaves_the_server_alone_for_as_long_as_it_says(browse, site, sales):
    page = browse("/report/")
    polls(page, site, 1)
    site.down = lambda: HttpResponse(status=503, headers={"Retry-After": "3"})
    polls(page, site, 2)

    assert site.polls[-1] - site.polls[-2] >= 2.9


@pytest.mark.parametrize("answer", [lambda: HttpResponse(status=404), redirect_to_log_in], ids=["404", "log-in"])
def test_the_script_stops_where_asking_again_would_not_help(browse, site, sales, answer, shots):
    page = browse("/report/")
    text(page, "Waiting to start")
    site.down = answer
    page.locator(".taskkit-gone").wait_for()
    shots(page, "progress-gone")

    assert page.get_by_role("progressbar").count() == 0
    assert page.evaluate("window.said.at(-1)").startswith("This can't be followed any further.")
    assert is_quiet(page, site)
    site.down = None
    page.get_by_role("link", name="Load the page again").click()
    text(page, "Waiting to start")


@WAYS
def test_what_nobody_knows_any_more_is_not_asked_for_again(browse, site, sales, htmx):
    page = browse(f"/report/?a=1{way(htmx)}")
    polls(page, site, 1)
    cache.clear()
    text(page, "Nothing is known about this any more.")

    assert is_quiet(page, site)


def test_the_script_does_not_ask_while_nobody_looks(browse, site, sales, work):
    page = browse("/report/")
    polls(page, site, 1)
    page.evaluate("""() => {
        Object.defineProperty(document, "hidden", { value: true, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    page.wait_for_timeout(500)  # one may be on its way
    assert is_quiet(page, site)
    sales.go_on()
    work()
    page.evaluate("""() => {
        delete document.hidden;
        document.dispatchEvent(new Event("visibilitychange"));
    }""")

    comes_to(page, 25)


# -- bars that come later


@pytest.mark.parametrize("htmx", [None, *HTMX])
def test_a_bar_that_comes_into_the_page_later_works_and_goes_to_that_page(browse, site, sales, stock, work, htmx):
    address = f"/two/?then=stay{way(htmx)}" if htmx else "/two/?then=stay"
    page = browse(address)
    sales_only = "document.querySelector('#later progress')"
    if htmx:
        until(page, "Boolean(window.htmx)")
        page.evaluate("htmx.ajax('GET', '/part/', '#later')")
    else:
        page.evaluate("""async () => {
            const answer = await fetch("/part/");
            document.getElementById("later").insertAdjacentHTML("beforeend", await answer.text());
        }""")
    page.get_by_role("progressbar", name="Later").wait_for()
    sales.go_on(3)
    work()
    until(page, f"{sales_only}?.value === 75")
    assert len(site.loads) == 1
    assert page.locator("meta[http-equiv=refresh]").count() == 0
    sales.go_on(2)
    text(page, "the sales are good")

    assert site.loads == [address] * 2


@pytest.mark.parametrize("htmx", HTMX)
def test_what_the_page_has_told_htmx_for_all_its_elements_does_not_count_for_a_bar(browse, site, sales, work, htmx):
    page = browse(f"/report/?inherits&htmx={htmx}")
    address = page.url
    sales.go_on(2)
    work()
    comes_to(page, 50)
    assert page.url == address
    assert page.locator("#later").inner_html() == ""
    sales.go_on(3)
    text(page, "the sales are good")

    assert site.loads == [f"/report/?inherits&htmx={htmx}"] * 2


# -- how it looks, and to whom


SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


@pytest.mark.parametrize("direction", ["ltr", "rtl"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_all_states_fit_the_window(browse, shots, size, scheme, direction):
    page = browse(f"/gallery/?{direction}", viewport=SIZES[size], color_scheme=scheme)
    page.get_by_role("progressbar", name="Renewed").wait_for()
    shots(page, f"progress-gallery-{size}-{scheme}-{direction}")

    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_bar_stand_out_from_what_is_behind_them(browse, scheme):
    page = browse("/gallery/?", color_scheme=scheme)
    background = {"light": (255, 255, 255), "dark": (18, 18, 18)}[scheme]
    for selector in (".taskkit-label", ".taskkit-text", ".taskkit-percent", ".taskkit-hint", ".taskkit-link a"):
        for colour in page.eval_on_selector_all(selector, "all => all.map((one) => getComputedStyle(one).color)"):
            assert contrast(rgb(colour, background), background) >= 4.5, (selector, colour)
    bar, track = pixel(page, ".taskkit-bar[value='37']", 0.2), pixel(page, ".taskkit-bar[value='37']", 0.8)

    assert contrast(bar, background) >= 3
    assert contrast(bar, track) >= 3


def pixel(page, selector, along):
    """The colour that is shown at so much of the way through an element, halfway down."""
    box = page.locator(selector).bounding_box()
    clip = {"x": box["x"] + along * box["width"], "y": box["y"] + box["height"] / 2, "width": 1, "height": 1}
    png, at, data = page.screenshot(clip=clip, full_page=True), 8, b""
    while at < len(png):
        size, kind = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        data += png[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += size + 12
    return tuple(zlib.decompress(data)[1:4])  # after the number of the row's filter


def rgb(colour, background):
    """The three numbers of a computed colour, as it shows on `background`."""
    numbers = [float(number) for number in re.findall(r"[\d.]+(?:e-\d+)?", colour.replace("srgb", ""))]
    scale = 255 if colour.startswith("color(") else 1
    alpha = numbers[3] if len(numbers) > 3 else 1
    return [alpha * scale * n + (1 - alpha) * b for n, b in zip(numbers, background, strict=False)]


def contrast(one, other):
    """As WCAG 2 has it."""

    def luminance(colour):
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_nothing_moves_for_whoever_prefers_that(browse):
    moves = "getComputedStyle(document.querySelector('.taskkit-is-running .taskkit-bar:indeterminate')).animationName"

    assert browse("/gallery/?").evaluate(moves) == "taskkit-move"
    assert browse("/gallery/?", reduced_motion="reduce").evaluate(moves) == "none"


def test_a_site_chooses_its_own_colour(browse):
    page = browse("/gallery/?", bypass_csp=True)
    page.add_style_tag(content=".taskkit-progress { --taskkit-bar: rgb(102, 51, 153); }")

    assert pixel(page, ".taskkit-bar[value='37']", 0.2) == (102, 51, 153)


def test_what_a_screen_reader_finds(browse):
    page = browse("/gallery/?")
    tree = page.locator("main").aria_snapshot()

    assert '- progressbar "Sales"' in tree
    assert "- status" in tree
    for bar in page.get_by_role("progressbar").all():
        described = bar.get_attribute("aria-describedby")
        assert page.locator(f"#{described}").inner_text().strip()
