"""A Deployment for each process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing.formats import yaml_text
from django_taskkit.routing.formats.yaml_text import Commented
from django_taskkit.routing.processes import Place, Process, alive_probe, comments, ready_probe

IN_IMAGE = True

_LONGEST_NAME = 63


def files(processes: Sequence[Process], place: Place) -> dict[str, str]:
    """Return the manifests.

    Raises:
        ConfigurationError: a name is too long for a label.
    """
    return {f"{place.project}.yaml": "---\n".join(yaml_text.text(_deployment(process, place)) for process in processes)}


def _deployment(process: Process, place: Place) -> dict[str, Any]:
    name = f"{place.project}-{process.name}".lower().replace("_", "-")
    if len(name) > _LONGEST_NAME:
        raise ConfigurationError(
            f"{name!r} has {len(name)} characters, and Kubernetes takes {_LONGEST_NAME}; shorten it"
        )
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": place.project.lower().replace("_", "-")}
    selector = {"app.kubernetes.io/name": name}
    recreate = Commented({"type": "Recreate"}, "The old one ends before the new one starts: one at a time.")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": Commented(
            {
                "replicas": 1,
                "strategy": recreate if process.single else None,
                "selector": {"matchLabels": selector},
                "template": {"metadata": {"labels": labels}, "spec": _pod(process, place)},
            },
            *comments(process),
        ),
    }


def _pod(process: Process, place: Place) -> dict[str, Any]:
    return {
        "terminationGracePeriodSeconds": Commented(process.stop_grace, "Without: 30, and then tasks are killed."),
        "containers": [
            {
                "name": process.name.lower().replace("_", "-"),
                "image": place.image or place.project.lower(),
                "command": Commented(
                    [_literal(word) for word in (place.python, *process.arguments)],
                    "No shell in between: it would get TERM in Celery's place.",
                ),
                "workingDir": place.directory or None,
                "env": [{"name": name, "value": _literal(value)} for name, value in place.environment.items()] or None,
                "envFrom": Commented(None, "envFrom: [{secretRef: {name: ...}}] for what is secret."),
                "resources": Commented(None, "resources: yours to say; each process of a pool has its own memory."),
                "readinessProbe": _probe(ready_probe(process), place, period=10, failures=3),
                "livenessProbe": Commented(
                    _probe(alive_probe(process), place, period=30, failures=4),
                    "Only where a restart would help: not for a broker that is away.",
                ),
            }
        ],
    }


def _probe(arguments: Sequence[str], place: Place, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "exec": {"command": [_literal(word) for word in (place.python, *arguments)]},
        "periodSeconds": period,
        "timeoutSeconds": 20,
        "failureThreshold": failures,
    }


def _literal(text: str) -> str:
    """Return ``text`` so that Kubernetes replaces no variables in it."""
    return text.replace("$(", "$$(")
