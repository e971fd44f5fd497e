from datetime import timedelta

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from django_taskkit.doctor.clocks import database_clock
from django_taskkit.doctor.relay import outbox, relay, spooled
from django_taskkit.doctor.tables import database, dead_letters, migrations
from django_taskkit.models import OutboxMessage, RelayHeartbeat
from tests.letters import dead_letter

pytestmark = pytest.mark.django_db


def waits(**values):
    now = timezone.now()
    return OutboxMessage.objects.create(
        **{"task_id": "t", "task_name": "shop.sell", "reason": "publish_failed", "queue": "q", "created_at": now}
        | values
    )


def seen(ago):
    now = timezone.now()
    RelayHeartbeat.objects.create(name=f"relay {ago}", started_at=now - ago, seen_at=now - ago)


def test_a_database_with_all_migrations_is_fine(site, levels):
    assert levels([*database(site), *migrations(site)]) == {"database": "ok", "migrations": "ok"}


def test_a_migration_that_is_not_applied_is_an_error_by_name(site):
    [(_app, last)] = MigrationLoader(connection).graph.leaf_nodes("django_taskkit")
    MigrationRecorder(connection).record_unapplied("django_taskkit", last)

    [found] = migrations(site)

    assert found.level.value == "error"
    assert last in found.text


def test_the_databases_clock_is_compared_where_it_has_one(site):
    [found] = database_clock(site)

    assert found.level.value == "ok"


def test_too_many_dead_letters_are_a_warning(site, settings):
    settings.TASKKIT = {"DEAD_WARN_COUNT": 1}
    dead_letter()
    assert [finding.level.value for finding in dead_letters(site)] == ["ok"]

    dead_letter()

    assert [finding.level.value for finding in dead_letters(site)] == ["warning"]


def test_a_relay_that_was_seen_lately_is_alive(site, levels):
    seen(timedelta(seconds=5))

    assert levels(relay(site)) == {"relay": "ok"}


def test_without_a_relay_something_may_be_lost(site, levels):
    seen(timedelta(hours=1))

    assert levels(relay(site)) == {"relay": "warning"}


def test_without_a_relay_what_waits_in_the_outbox_is_an_error(site, levels):
    waits()

    assert levels(relay(site)) == {"relay": "error"}


def test_without_a_relay_an_outbox_for_everything_is_an_error(site, levels, settings):
    settings.TASKKIT = {"OUTBOX": "always"}

    assert levels(relay(site)) == {"relay": "error"}


@pytest.mark.parametrize(
    ("created", "due", "level"),
    [
        (timedelta(seconds=30), None, "ok"),
        (timedelta(hours=1), None, "error"),
        (timedelta(hours=9), timedelta(hours=-1), "ok"),
        (timedelta(hours=9), timedelta(seconds=30), "ok"),
        (timedelta(hours=9), timedelta(hours=1), "error"),
    ],
)
def test_what_is_due_for_long_in_the_outbox_is_an_error(site, created, due, level):
    now = timezone.now()
    waits(created_at=now - created, due_at=None if due is None else now - due, last_error="broker says no")

    [found] = outbox(site)

    assert found.level.value == level
    assert ("broker says no" in found.text) == (level == "error")


def test_files_in_the_spool_are_a_warning(site, settings, tmp_path):
    settings.TASKKIT = {"SPOOL_DIR": str(tmp_path)}
    tmp_path.chmod(0o700)
    assert [finding.level.value for finding in spooled(site)] == ["ok"]

    from django_taskkit.dlq import spool_files

    spool_files.write("{}")

    [found] = spooled(site)
    assert found.level.value == "warning"
    assert "1 in files" in found.text


def test_a_spool_that_takes_no_file_is_an_error(site, settings, tmp_path):
    (tmp_path / "file").write_text("")
    settings.TASKKIT = {"SPOOL_DIR": str(tmp_path / "file" / "spool")}

    assert [finding.level.value for finding in spooled(site)] == ["error"]
