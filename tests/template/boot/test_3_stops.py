"""Workers that are told to stop, or killed, in the midst of their tasks. Nothing is lost, and nothing is done twice.

The mail server, or the geocoder, holds up the task, so that the signal always comes in its midst.
"""

from tests.live.waiting import wait_until
from tests.template.boot.booted import PATIENCE

SOON = 15
"""Seconds that a mail may be held up: after 20 the project gives it up for now (EMAIL_TIMEOUT)."""


def all_settled(site, orders):
    site.wait("[pk for pk in unsettled() if pk in orders] == []", "every order is settled", within=240, orders=orders)


def receipts(site, orders):
    """How often each order's receipt has arrived."""
    subjects = site.mail.subjects("Your receipt for order ")
    return {pk: subjects.count(f"Your receipt for order {pk}") for pk in orders}


def in_the_midst(valve, number):
    wait_until(lambda: len(valve.waiting) == number, PATIENCE, f"{number} tasks are in their midst", interval=0.05)


def stop_warmly(worker, valve):
    """TERM in mid-task: the worker waits for its tasks, and takes no more; the next one goes on."""
    worker.term()
    worker.says("Warm shutdown", within=SOON)
    assert worker.runs
    assert worker.health().returncode == 1  # no more tasks may come here
    valve.open()
    assert worker.ends() == 0
    assert worker.health().returncode == 1
    worker.start()


def test_TERM_lets_receipts_be_sent(site, hold_mail):
    hold_mail.close()
    orders = site.ask("place(6)")
    in_the_midst(hold_mail, 2)

    stop_warmly(site.worker("customers"), hold_mail)

    all_settled(site, orders)
    assert receipts(site, orders) == dict.fromkeys(orders, 1)


def test_TERM_lets_a_digest_be_sent(site, hold_mail):
    before = len(site.mail.subjects("Shop: the last 24 hours"))
    hold_mail.close()
    site.ask("send('orders.tasks.nightly_digest')")
    in_the_midst(hold_mail, 1)

    stop_warmly(site.worker("default"), hold_mail)

    wait_until(site.worker("default").is_well, PATIENCE, "the new worker is well", interval=0.5)
    assert len(site.mail.subjects("Shop: the last 24 hours")) == before + 1
    mail = site.mail.mails[-1]
    assert mail["To"] == "owner@shop.example"
    assert "Dead letters that wait for you: 4" in mail.get_content()


def test_TERM_lets_an_export_be_made(site):
    before = site.ask("exports_made()")
    worker = site.worker("reports")
    site.ask("start_export(2025)")
    site.wait("0 < how_far(2025) < 100", "the export is under way")

    worker.term()
    worker.says("Warm shutdown", within=SOON)
    assert worker.ends() == 0
    worker.start()

    site.wait("export_is_there(2025)", "the export is there")
    assert site.ask("exports_made()") == before + 1


def test_TERM_lets_a_place_be_looked_up(site, hold_places):
    before = len(site.geocoder.asked)
    hold_places.close()
    customers = site.ask("meet(3)")
    in_the_midst(hold_places, 1)

    stop_warmly(site.worker("geocoding"), hold_places)

    site.wait("located(customers) == 3", "all three are found", customers=customers)
    assert len(site.geocoder.asked) == before + 3


def test_KILL_of_a_worker_loses_no_receipt(site, hold_mail):
    worker = site.worker("customers")
    wait_until(worker.is_well, PATIENCE, "the worker is well", interval=0.5)
    hold_mail.close()
    orders = site.ask("place(6)")
    in_the_midst(hold_mail, 2)

    worker.kill()

    assert worker.health().returncode == 1
    assert worker.health("--alive").returncode == 1
    in_the_midst(hold_mail, 0)
    hold_mail.open()
    worker.start()
    all_settled(site, orders)
    assert receipts(site, orders) == dict.fromkeys(orders, 1)


def test_KILL_of_one_process_of_a_worker_loses_no_receipt(site, hold_mail):
    worker = site.worker("customers")
    wait_until(worker.is_well, PATIENCE, "the worker is well", interval=0.5)
    hold_mail.close()
    orders = site.ask("place(3)")
    in_the_midst(hold_mail, 2)

    site.kill_process(worker.children()[0])

    in_the_midst(hold_mail, 2)
    assert worker.is_well()
    hold_mail.open()
    all_settled(site, orders)
    assert receipts(site, orders) == dict.fromkeys(orders, 1)


def test_KILL_in_the_midst_of_an_export_has_it_made_anew(site):
    before = site.ask("exports_made()")
    worker = site.worker("reports")
    wait_until(worker.is_well, PATIENCE, "the worker is well", interval=0.5)
    site.ask("start_export(2025)")
    site.wait("0 < how_far(2025) < 100", "the export is under way")

    worker.kill()
    worker.start()

    site.wait("export_is_there(2025)", "the page offers it", within=240)
    assert site.ask("exports_made()") == before + 1


def test_KILL_in_the_midst_of_a_chain_has_it_go_on_where_it_was(site, hold_mail):
    worker = site.worker("reports")
    wait_until(worker.is_well, PATIENCE, "the worker is well", interval=0.5)
    hold_mail.close()
    site.ask("close(2026, 4)")
    in_the_midst(hold_mail, 1)

    worker.kill()
    in_the_midst(hold_mail, 0)
    hold_mail.open()
    worker.start()

    site.wait("['2026-04', True] in closings()", "April is closed and mailed", within=240)
    assert len(site.mail.subjects("Shop: closing of 2026-04")) == 1


def test_KILL_of_the_relay_keeps_what_it_had_to_send(site):
    relay = site.processes["relay"]
    relay.kill()
    assert relay.health().returncode == 1
    orders = site.ask("place(2)")

    relay.start()

    all_settled(site, orders)
    assert receipts(site, orders) == dict.fromkeys(orders, 1)


def test_KILL_of_beat_ends_the_schedule_only_until_the_next_beat(site):
    beat = site.processes["beat"]
    beat.kill()
    assert beat.health().returncode == 1

    beat.start()

    wait_until(beat.is_well, PATIENCE, "the new beat is well", interval=0.5)
