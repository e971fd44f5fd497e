import threading
from pathlib import Path

import pytest
from django.db import DatabaseError

from django_taskkit.doctor import running
from django_taskkit.doctor.finding import Level, error, ok, unknown, warning
from django_taskkit.doctor.probes import PROBES
from django_taskkit.doctor.running import Probe, Where, examine, worst
from django_taskkit.doctor.site import Site
from django_taskkit.exceptions import BrokerUnreachableError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "doctor.md"


def probe(look, name="tried", where=Where.THREAD):
    return Probe(name=name, asks="", look=look, where=where)


def good(site):
    yield ok("good", "It is.")


def raising(exc):
    def look(site):
        yield ok("before", "So far.")
        raise exc

    return look


def found_by(site, *probes):
    return [finding for _probe, finding in examine(site, probes)]


@pytest.mark.parametrize("where", [Where.THREAD, Where.HERE])
def test_what_a_probe_raises_is_a_finding_and_the_others_go_on(site, where):
    found = found_by(site, probe(raising(KeyError("x")), where=where), probe(good))

    assert [(finding.id, finding.level) for finding in found] == [("tried", Level.UNKNOWN), ("good", Level.OK)]


@pytest.mark.django_db
def test_a_database_that_fails_harms_no_other_probe(site):
    def broken(site):
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("SELECT no_such_column FROM no_such_table")
        yield ok("never", "")

    def working(site):
        from django_taskkit.models import DeadLetter

        yield ok("count", str(DeadLetter.objects.count()))

    found = found_by(site, probe(broken, where=Where.DATABASE), probe(working, where=Where.DATABASE))

    assert [(finding.id, finding.level.value, finding.text[:1]) for finding in found] == [
        ("tried", "unknown", "T"),
        ("count", "ok", "0"),
    ]


def test_a_probe_that_gets_no_answer_is_given_up(app):
    never = threading.Event()

    def waits(site):
        never.wait()
        yield ok("never", "")

    try:
        [given_up, other] = found_by(Site(app, timeout=0.05), probe(waits), probe(good))
    finally:
        never.set()

    assert (given_up.level, given_up.text) == (Level.UNKNOWN, "No answer in 0.05 s.")
    assert other.id == "good"


def test_a_broker_out_of_reach_is_asked_once(app):
    app.conf.broker_url = "redis://127.0.0.1:1/0"
    site, asked = Site(app, timeout=20), []
    with pytest.raises(BrokerUnreachableError):
        site.on_broker(asked.append)

    app.conf.broker_url = "memory://"  # which would answer
    with pytest.raises(BrokerUnreachableError):
        site.on_broker(asked.append)
    with pytest.raises(BrokerUnreachableError):
        site.queues()
    with pytest.raises(BrokerUnreachableError):
        site.workers()

    assert asked == []
    [found] = found_by(site, probe(lambda site: [ok("queues", str(site.queues()))]))
    assert (found.level, found.text) == (Level.UNKNOWN, "The broker can't be reached, so this could not be looked at.")


def test_of_an_error_that_may_hold_a_password_only_the_class_is_shown():
    assert running.said_by(ValueError("redis://:secret@host")) == "ValueError"
    assert running.said_by(DatabaseError("no\nsuch table")) == "DatabaseError: no such table"


def test_the_worst_finding_decides():
    assert worst([]) is Level.OK
    assert worst([ok("a", ""), unknown("b", "")]) is Level.UNKNOWN
    assert worst([warning("a", "", ""), unknown("b", ""), error("c", "", ""), ok("d", "")]) is Level.ERROR


def test_each_probe_has_a_name_of_its_own_and_says_what_it_asks():
    assert len({probe.name for probe in PROBES}) == len(PROBES)
    assert all(probe.asks for probe in PROBES)


def test_each_finding_has_a_heading_in_the_documentation():
    import django_taskkit.doctor as package

    text = DOCS.read_text().partition("## What it looks at")[2]
    headings = {line[4:].strip() for line in text.splitlines() if line.startswith("### ")}
    ids = {probe.name for probe in PROBES} - {"redis", "rabbitmq"}
    for path in Path(package.__file__).parent.glob("*.py"):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" = ")
            if name.isupper() and value.startswith('"') and name in NAMES_OF_IDS:
                ids.add(value.strip('"'))

    assert ids - headings == set()
    assert headings - ids == set()


NAMES_OF_IDS = {
    "ARGUMENTS",
    "BEAT",
    "CLOCKS",
    "DATABASE",
    "DATABASE_CLOCK",
    "DEAD_LETTERS",
    "EVICTION",
    "EXPIRY",
    "MEMORY",
    "MIGRATIONS",
    "MODULES",
    "OUTBOX",
    "PERSISTENCE",
    "QUEUES",
    "RELAY",
    "RESULTS",
    "SETTINGS",
    "SPOOL",
    "STORE",
    "STRANDED",
    "TASKS",
    "TIMEOUT",
    "UNREAD",
    "VERSION",
    "VERSIONS",
    "WITHOUT_APP",
    "WORKERS",
}
"""The constants that hold ids; a new one belongs here, and into docs/doctor.md."""
