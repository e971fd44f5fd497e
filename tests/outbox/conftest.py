"""Fixtures of the outbox's tests: a broker that is out of reach, and a relay that is alive."""

import pytest
from django.utils import timezone

from django_taskkit.models import RelayHeartbeat
from django_taskkit.outbox.presence import watch

OUT_OF_REACH = "redis://127.0.0.1:1"


@pytest.fixture(autouse=True)
def forgetful_watch():
    watch.forget()
    yield
    watch.forget()


@pytest.fixture
def unreachable(station):
    """The station's app with a broker that refuses connections, and no patience."""
    station.app.conf.update(
        broker_url=OUT_OF_REACH, task_publish_retry=True, task_publish_retry_policy={"max_retries": 0}
    )
    return station.app


@pytest.fixture
def relay_is_alive(db):
    RelayHeartbeat.objects.create(name="other", started_at=timezone.now(), seen_at=timezone.now())
