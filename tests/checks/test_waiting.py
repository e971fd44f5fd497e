"""What check --database says of the table."""

from datetime import timedelta

import pytest
from django.core import checks

from django_taskkit.models import DeadLetter
from tests.checks.asking import messages
from tests.letters import dead_letter


@pytest.mark.django_db
def test_w009_too_many_dead_letters_wait_or_for_too_long(station, settings):
    settings.TASKKIT = {"DEAD_WARN_COUNT": 1, "DEAD_WARN_AGE_DAYS": 10}
    for _ in range(2):
        dead_letter(ago=timedelta(days=12))

    many, old = (message for message in checks.run_checks(databases=["default"]) if message.id == "taskkit.W009")
    assert many.msg == "More than 1 dead letters wait for someone (TASKKIT['DEAD_WARN_COUNT'])."
    assert "has waited for 12 days" in old.msg
    assert "manage.py taskkit list" in many.hint
    assert "--until 10d" in old.hint
    assert messages() == [], "a check without --database asks none"
    settings.TASKKIT = {"DEAD_WARN_COUNT": "many"}
    assert [message.id for message in checks.run_checks(databases=["default"])] == ["taskkit.E001"]


@pytest.mark.django_db
def test_w009_is_silent_while_there_is_no_table(station, monkeypatch):
    monkeypatch.setattr(DeadLetter._meta, "db_table", "not_migrated_yet")

    assert checks.run_checks(databases=["default"]) == []
