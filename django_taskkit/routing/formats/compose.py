"""Services for Docker Compose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django_taskkit.routing.formats import yaml_text
from django_taskkit.routing.formats.yaml_text import Commented
from django_taskkit.routing.processes import Place, Process, comments, ready_probe

IN_IMAGE = True


def files(processes: Sequence[Process], place: Place) -> dict[str, str]:
    services = {process.name: Commented(_service(process, place), *comments(process)) for process in processes}
    return {"compose.yaml": yaml_text.text({"services": services})}


def _service(process: Process, place: Place) -> dict[str, Any]:
    return {
        "image": _literal(place.image or place.project.lower()),
        "command": [_literal(word) for word in (place.python, *process.arguments)],
        "working_dir": _literal(place.directory) or None,
        "user": _literal(place.user) or None,
        "env_file": [_literal(place.env_file)] if place.env_file else None,
        "environment": {name: _literal(value) for name, value in place.environment.items()} or None,
        "restart": "unless-stopped",
        "init": Commented(True, "Ends what tasks leave behind; it passes TERM to Celery's main process alone."),
        "stop_signal": "SIGTERM",
        "stop_grace_period": Commented(f"{process.stop_grace}s", "Without: Docker kills after 10 seconds."),
        "healthcheck": {
            "test": ["CMD", *(_literal(word) for word in (place.python, *ready_probe(process)))],
            "interval": "30s",
            "timeout": "20s",
            "retries": 3,
            "start_period": "60s",
        },
        "deploy": {"replicas": 1} if process.single else None,
    }


def _literal(text: str) -> str:
    """Return ``text`` so that Compose replaces no variables in it."""
    return text.replace("$", "$$")
