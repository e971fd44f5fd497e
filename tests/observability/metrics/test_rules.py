"""Alert rules: Prometheus takes them, and each fires at what it is for."""

import json
import re

import pytest
import yaml

from django_taskkit.observability.metrics.catalogue import BY_NAME
from django_taskkit.observability.metrics.rules import as_yaml, rules
from tests.observability.metrics.promtool import promtool

RULES = {rule.name: rule for rule in rules()}

FIRES = {
    "TaskkitDeadLetters": ({'taskkit_tasks_dead_lettered_total{task="a",reason="exception"}': "0x10 1x20"}, "12m"),
    "TaskkitLaneTooOld": ({'taskkit_lane_oldest_age_seconds{lane="fast"}': "0+60x30"}, "20m"),
    "TaskkitLaneWithoutConsumer": ({'taskkit_lane_consumers{lane="fast"}': "2x5 0x30"}, "20m"),
    "TaskkitWaitsTooLong": (
        {
            'taskkit_task_queue_seconds_bucket{lane="fast",le="60"}': "0x30",
            'taskkit_task_queue_seconds_bucket{lane="fast",le="300"}': "0+10x30",
            'taskkit_task_queue_seconds_bucket{lane="fast",le="+Inf"}': "0+10x30",
        },
        "20m",
    ),
    "TaskkitRetriesManyRuns": (
        {
            'taskkit_tasks_retried_total{task="a",lane="x"}': "0+8x60",
            'taskkit_tasks_started_total{task="a",lane="x"}': "0+10x60",
        },
        "40m",
    ),
    "TaskkitRedeliveries": ({'taskkit_tasks_redelivered_total{task="a",lane="x"}': "0+5x60"}, "40m"),
    "TaskkitOutboxTooOld": ({"taskkit_outbox_oldest_age_seconds": "0+60x30"}, "20m"),
    "TaskkitRelayGone": ({"taskkit_relay_last_seen_age_seconds": "5x5 5+60x30"}, "20m"),
    "TaskkitBeatGone": ({"taskkit_beat_last_seen_age_seconds": "5x5 5+60x30"}, "20m"),
    "TaskkitSpoolNotEmpty": ({'taskkit_spool_entries{place="files"}': "0x5 3x30"}, "20m"),
    "TaskkitBreakerOpen": ({'taskkit_breaker_open{dependency="stripe"}': "0x5 1x30"}, "20m"),
    "TaskkitExporterWithoutAnswer": ({'taskkit_exporter_answered{part="queues"}': "1x5 0x30"}, "20m"),
    "TaskkitExporterGone": ({}, "20m"),
}
"""Series, and the time at which the alert stands; one value a minute."""

CALM = {
    'taskkit_tasks_dead_lettered_total{task="a",reason="exception"}': "7x60",
    'taskkit_lane_oldest_age_seconds{lane="fast"}': "200x60",
    'taskkit_lane_consumers{lane="fast"}': "1x60",
    'taskkit_task_queue_seconds_bucket{lane="fast",le="60"}': "0+10x60",
    'taskkit_task_queue_seconds_bucket{lane="fast",le="+Inf"}': "0+10x60",
    'taskkit_tasks_retried_total{task="a",lane="x"}': "0+2x60",
    'taskkit_tasks_started_total{task="a",lane="x"}': "0+10x60",
    'taskkit_tasks_redelivered_total{task="a",lane="x"}': "3x60",
    "taskkit_outbox_oldest_age_seconds": "100x60",
    "taskkit_relay_last_seen_age_seconds": "9x60",
    "taskkit_beat_last_seen_age_seconds": "9x60",
    'taskkit_spool_entries{place="files"}': "0x60",
    'taskkit_breaker_open{dependency="stripe"}': "0x60",
    'taskkit_exporter_answered{part="queues"}': "1x60",
}
"""A system in which nothing is wrong, after 40 minutes."""


@pytest.fixture
def rule_file(tmp_path):
    path = tmp_path / "rules.yml"
    path.write_text(as_yaml(rules()))
    return path


def tried(rule_file, series, at, silent):
    """What ``promtool test rules`` says if none of the alerts ``silent`` is to stand; 1 and which if one does."""
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": []} for name in silent],
    }
    path = rule_file.with_name("test.yml")
    path.write_text(json.dumps({"rule_files": [rule_file.name], "evaluation_interval": "1m", "tests": [test]}))
    return promtool("test", "rules", path)


def test_prometheus_takes_the_rules(rule_file):
    code, said = promtool("check", "rules", rule_file)

    assert code == 0, said
    assert f"{len(RULES)} rules found" in said


def test_the_file_is_what_other_readers_of_yaml_read(rule_file):
    (group,) = yaml.safe_load(rule_file.read_text())["groups"]

    assert [rule["alert"] for rule in group["rules"]] == list(RULES)
    assert [rule["expr"] for rule in group["rules"]] == [rule.expr for rule in RULES.values()]


def test_each_rule_is_about_metrics_of_the_catalogue():
    for rule in RULES.values():
        names = set(re.findall(r"taskkit_\w+", rule.expr))
        assert names, rule.name
        for name in names:
            assert re.sub(r"_(bucket|count|sum)$", "", name) in BY_NAME, (rule.name, name)


def test_each_rule_is_tried():
    assert FIRES.keys() == RULES.keys()


@pytest.mark.parametrize("name", FIRES)
def test_it_fires(rule_file, name):
    series, at = FIRES[name]

    # There is no way to say "some alert": that none stands has to be wrong.
    code, said = tried(rule_file, series, at, [name])

    assert code == 1, f"{name} is silent"
    assert f'alertname="{name}"' in said or name in said
    assert "got:[" in said.replace(" ", ""), said


def test_nothing_fires_where_nothing_is_wrong(rule_file):
    code, said = tried(rule_file, CALM, "40m", RULES)

    assert code == 0, said


def test_the_very_first_death_of_a_task_fires_although_its_series_begins_with_it(rule_file):
    series = {'taskkit_tasks_dead_lettered_total{task="a",reason="permanent",instance="w"}': "_x10 1x30"}

    assert tried(rule_file, series, "12m", ["TaskkitDeadLetters"])[0] == 1
    assert tried(rule_file, series, "30m", ["TaskkitDeadLetters"])[0] == 0


def test_limits_can_be_chosen():
    text = as_yaml(rules(oldest=42, waiting=7))

    assert "taskkit_lane_oldest_age_seconds) > 42" in text
    assert "[10m]))) > 7" in text
