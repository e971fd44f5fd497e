"""The account, the log of a whole life, and the end of all processes."""


def test_every_order_has_its_receipt_or_a_dead_letter(site):
    site.wait("unsettled() == []", "every order is settled")
    placed = set(site.ask("placed()"))
    dead = set(site.ask("orders_of_dead_letters('orders.tasks.send_receipt')"))
    sent = {int(subject.rpartition(" ")[2]) for subject in site.mail.subjects("Your receipt for order ")}

    assert placed == sent | dead
    assert not sent & dead


def test_the_log_is_json_and_names_the_task(site):
    for process in site.processes.values():
        if process.name == "flower":
            continue
        records = process.records()
        assert records or process.name == "relay", f"{process.name} logs nothing"
        for record in records:
            assert {"timestamp", "level", "logger", "message", "pid"} <= set(record), record
            if record["logger"].startswith(("celery.app.trace", "celery.worker.strategy", "orders")):
                assert record.get("task_id"), record
        assert [record for record in records if record["level"] == "CRITICAL"] == [], process.name


def test_all_end_in_good_order_and_in_time(site):
    try:
        site.stop()
    finally:
        said = {name: process.tail() for name, process in site.processes.items()}
    codes = {name: process.process.returncode for name, process in site.processes.items()}
    assert codes == dict.fromkeys(codes, 0), said
