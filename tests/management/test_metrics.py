"""taskkit metrics: what is measured, and what is made of that list."""

import json
import re
from pathlib import Path

import pytest
import yaml

from django_taskkit.management.metrics import table
from django_taskkit.observability.metrics.catalogue import METRICS
from tests.management.test_taskkit import run

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def said(capsys):
    def said(*arguments):
        capsys.readouterr()
        assert run("metrics", *arguments) == 0
        return capsys.readouterr().out

    return said


def test_the_list_has_every_metric_with_its_labels(said):
    text = said("list")

    for metric in METRICS:
        assert metric.name in text
        assert metric.help in text
    assert "taskkit_tasks_sent_total{task, lane} (counter)" in text


def test_the_list_for_programs(said):
    facts = json.loads(said("list", "--json"))

    assert [fact["name"] for fact in facts] == [metric.name for metric in METRICS]
    assert facts[0]["labels"] == ["task", "lane"]


def test_the_table_in_the_docs_is_the_list(said):
    assert said("list", "--markdown").strip() == table()
    assert table() in (DOCS / "metrics.md").read_text(), "put in what `taskkit metrics list --markdown` prints"


def test_the_docs_name_every_alert():
    from django_taskkit.observability.metrics.rules import rules

    text = (DOCS / "metrics.md").read_text()
    assert [rule.name for rule in rules() if f"`{rule.name}`" not in text] == []


def test_rules_are_printed_as_a_file(said):
    (group,) = yaml.safe_load(said("rules", "--oldest=42"))["groups"]

    assert len(group["rules"]) > 10
    assert any("> 42" in rule["expr"] for rule in group["rules"])


def test_the_dashboard_is_printed_as_json(said):
    assert json.loads(said("dashboard"))["title"] == "django-taskkit"


@pytest.mark.parametrize("option", ["--oldest=0", "--waiting=-1", "--oldest=nan", "--waiting=inf"])
def test_a_limit_that_makes_no_sense_is_refused_by_name(option, capsys):
    assert run("metrics", "rules", option) == 1
    assert re.search(rf"{option.partition('=')[0]} is .*above 0", capsys.readouterr().err)


def test_nothing_is_served_where_nothing_is_measured(capsys):
    assert run("metrics", "serve") == 1
    assert "TASKKIT['METRICS'] is empty" in capsys.readouterr().err


def test_a_port_that_is_none_is_refused(settings, capsys):
    settings.TASKKIT = {"METRICS": ["prometheus"]}

    assert run("metrics", "serve", "--port=nine") == 1
    assert "--port is 'nine'" in capsys.readouterr().err
