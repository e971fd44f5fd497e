"""The dashboard: every metric is on it, and Prometheus takes every query."""

import json
import re

from django_taskkit.observability.metrics.catalogue import BY_NAME, METRICS
from django_taskkit.observability.metrics.dashboard import COLUMNS, HEIGHT, WIDTH, dashboard
from tests.observability.metrics.promtool import promtool


def panels():
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions():
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def test_every_metric_has_a_panel_and_no_other_has():
    drawn = {re.sub(r"_bucket$", "", name) for expr in expressions() for name in re.findall(r"taskkit_\w+", expr)}

    assert drawn == set(BY_NAME)
    assert len(panels()) == len(METRICS)


def test_prometheus_takes_every_query(tmp_path):
    """As a rule's expression: promtool's own check of a query asks for a server."""
    path = tmp_path / "queries.yml"
    rules = [
        {"record": f"query:{number}", "expr": expr.replace("$__rate_interval", "5m")}
        for number, expr in enumerate(expressions())
    ]
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))

    code, said = promtool("check", "rules", "--lint=none", path)

    assert code == 0, said


def test_panels_do_not_cover_each_other():
    taken = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert COLUMNS * WIDTH == 24
    assert HEIGHT


def test_numbers_and_names_are_told_apart():
    everything = dashboard()["panels"]

    assert len({panel["id"] for panel in everything}) == len(everything)
    assert len({panel["title"] for panel in everything}) == len(everything)


def test_it_is_json():
    assert json.loads(json.dumps(dashboard()))["uid"] == "django-taskkit"
