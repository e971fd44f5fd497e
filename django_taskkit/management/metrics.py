"""``manage.py taskkit metrics``: what is measured, alert rules and a dashboard for it, and the exporter."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_taskkit import conf
from django_taskkit.dlq.project import project_app
from django_taskkit.exceptions import ConfigurationError, NoAppError
from django_taskkit.management.stopping import stopped_by_signals
from django_taskkit.observability.metrics.catalogue import METRICS, Metric

HELP = "Show what is measured, print alert rules or a dashboard for it, or serve what is asked once for all workers."

CHOICES = ("list", "rules", "dashboard", "serve")


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "what",
        choices=CHOICES,
        help="list: every metric; rules: alert rules for Prometheus; dashboard: one for Grafana; serve: the exporter",
    )
    parser.add_argument("--json", action="store_true", help="list: as JSON")
    parser.add_argument("--markdown", action="store_true", help="list: as the table in the docs")
    parser.add_argument(
        "--oldest", type=float, default=300.0, metavar="SECONDS", help="rules: how long a message may wait (300)"
    )
    parser.add_argument(
        "--waiting", type=float, default=60.0, metavar="SECONDS", help="rules: how long 95 of 100 runs may wait (60)"
    )
    parser.add_argument(
        "--port", default="9100", help="serve: a port of loopback, or host and port: 0.0.0.0:9100 (9100)"
    )
    parser.add_argument(
        "--queue", action="append", default=[], help="serve: a queue to ask about, instead of the project's; repeatable"
    )


def handle(command: BaseCommand, **options: Any) -> None:
    if options["what"] == "serve":
        _serve(command, options)
    elif options["what"] == "rules":
        _rules(command, options)
    elif options["what"] == "dashboard":
        from django_taskkit.observability.metrics.dashboard import dashboard

        command.stdout.write(json.dumps(dashboard(), indent=2))
    else:
        _list(command, options)


def table() -> str:
    """Return the catalogue as a table in Markdown."""
    lines = ["| metric | kind | labels | OpenTelemetry | |", "|---|---|---|---|---|"]
    lines += [
        f"| `{metric.name}` | {metric.kind.value} | {', '.join(f'`{label}`' for label in metric.labels)} "
        f"| `{metric.otel}`, `{metric.unit}` | {metric.help} |"
        for metric in METRICS
    ]
    return "\n".join(lines)


def _list(command: BaseCommand, options: dict[str, Any]) -> None:
    if options["json"]:
        command.stdout.write(json.dumps([_facts(metric) for metric in METRICS], indent=2))
    elif options["markdown"]:
        command.stdout.write(table())
    else:
        for metric in METRICS:
            labels = f"{{{', '.join(metric.labels)}}}" if metric.labels else ""
            command.stdout.write(f"{metric.name}{labels} ({metric.kind.value})\n    {metric.help}")


def _facts(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "kind": metric.kind.value,
        "labels": list(metric.labels),
        "opentelemetry": metric.otel,
        "unit": metric.unit,
        "help": metric.help,
        "buckets": list(metric.buckets),
    }


def _rules(command: BaseCommand, options: dict[str, Any]) -> None:
    from django_taskkit.observability.metrics.rules import as_yaml, rules

    for name in ("oldest", "waiting"):
        if not 0 < options[name] < float("inf"):
            raise CommandError(f"--{name} is {options[name]}; give a number of seconds above 0.")
    command.stdout.write(as_yaml(rules(options["oldest"], options["waiting"])), ending="")


def _serve(command: BaseCommand, options: dict[str, Any]) -> None:
    from django_taskkit.observability.metrics import serving
    from django_taskkit.observability.metrics.asked import Asked
    from django_taskkit.observability.metrics.counting import REMEDIES

    chosen = conf.current().metrics
    if not chosen:
        raise CommandError("TASKKIT['METRICS'] is empty, so nothing is measured; name 'prometheus' or 'opentelemetry'.")
    try:
        asked = Asked(project_app(), options["queue"])
    except NoAppError as exc:
        raise CommandError(str(exc)) from exc
    try:
        if "opentelemetry" in chosen:
            from django_taskkit.observability.metrics.opentelemetry import observe_gauges

            observe_gauges(asked.samples)
            command.stdout.write("The gauges go where the project's OpenTelemetry SDK sends them.")
        if "prometheus" in chosen:
            from django_taskkit.observability.metrics.prometheus import FOLDER_VARIABLE, Gauges

            host, port = serving.address(options["port"], "--port")
            # Of processes that share a folder, one is enough to show what all have counted.
            own = [] if os.environ.get(FOLDER_VARIABLE) else [serving.Processes()]
            port = serving.serve([Gauges(asked.samples), *own], host, port)
            command.stdout.write(f"Serving http://{host}:{port}/metrics. Ctrl-C ends it.")
    except ImportError as exc:
        remedies = " and ".join(REMEDIES[name] for name in chosen)
        raise CommandError(f"The library that TASKKIT['METRICS'] names is not installed ({exc}): {remedies}") from exc
    except (OSError, ConfigurationError) as exc:
        raise CommandError(f"The exporter can't serve at {options['port']}: {exc}") from exc
    stop = threading.Event()
    with stopped_by_signals(stop):
        stop.wait()
