import pytest
from django.core import checks

from django_taskkit.doctor import settings as probe
from django_taskkit.doctor.settings import settings as look


@pytest.fixture
def found(site, monkeypatch):
    """``found(messages)``: the findings if the checks say that."""

    def found(*messages):
        monkeypatch.setattr(probe.checks, "run_checks", lambda **options: list(messages))
        return list(look(site))

    return found


def test_where_the_checks_have_nothing_to_say_that_is_said(found):
    assert [finding.level.value for finding in found(checks.Info("Only so.", id="t.I001"))] == ["ok"]


def test_what_has_the_same_remedy_is_told_together(found):
    messages = [
        checks.Warning("It has no limit.", hint="Give it one.", obj=f"shop.task{number}", id="t.W001")
        for number in range(7)
    ]
    other = checks.Warning("It has no limit.", hint="Another.", id="t.W001")
    together, alone, broken = found(*messages, other, checks.Error("It is broken.", hint="Mend it.", id="t.E001"))

    assert (together.id, together.level.value, together.remedy) == ("t.W001", "warning", "Give it one.")
    assert together.text.startswith("shop.task0: It has no limit. shop.task1: It has no limit. shop.task2: ")
    assert together.text.endswith("shop.task4: It has no limit. And 2 more of the kind.")
    assert (alone.text, alone.remedy) == ("It has no limit.", "Another.")
    assert (broken.id, broken.level.value) == ("t.E001", "error")
