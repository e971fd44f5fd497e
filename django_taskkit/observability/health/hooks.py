"""Have workers and beats give signs of life; what does so is loaded by them alone."""

from __future__ import annotations

from typing import Any

from celery import signals
from celery.worker.consumer import Consumer

STEP = "django_taskkit.observability.health.worker:HealthStep"


def install() -> None:
    """Hook into Celery; doing it twice changes nothing."""
    blueprint: Any = Consumer.Blueprint
    if STEP not in blueprint.default_steps:
        blueprint.default_steps = [*blueprint.default_steps, STEP]
    signals.beat_init.connect(_on_beat, dispatch_uid="django_taskkit.health", weak=False)


def _on_beat(**kwargs: Any) -> None:
    from django_taskkit.observability.health import beat

    beat.install()
