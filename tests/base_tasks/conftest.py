"""Fixtures of the base tasks' tests: which retries were scheduled, and a relay that is alive."""

import pytest
from django.utils import timezone

from django_taskkit.models import RelayHeartbeat
from django_taskkit.outbox.presence import watch
from django_taskkit.signals import task_retry_scheduled


@pytest.fixture
def retries():
    """The retries that were scheduled, as the signal tells of them."""
    seen = []

    def receiver(sender, event, **kwargs):
        seen.append(event)

    task_retry_scheduled.connect(receiver)
    yield seen
    task_retry_scheduled.disconnect(receiver)


@pytest.fixture
def delays():
    """Seconds before each retry that was scheduled."""
    seen = []

    def receiver(sender, event, **kwargs):
        seen.append(event.delay)

    task_retry_scheduled.connect(receiver)
    yield seen
    task_retry_scheduled.disconnect(receiver)


@pytest.fixture
def relay_is_alive(db):
    RelayHeartbeat.objects.create(name="other", started_at=timezone.now(), seen_at=timezone.now())
    watch.forget()
    yield
    watch.forget()
