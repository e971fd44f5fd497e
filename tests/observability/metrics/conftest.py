import pytest
from prometheus_client import CollectorRegistry

from django_taskkit.observability.metrics import counting, labels
from django_taskkit.observability.metrics.prometheus import Prometheus


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def counted(registry, station):
    """What is counted from now on; ``counted("tasks_sent_total", task="shop.add")`` is the sum of such series."""
    labels.forget()
    counting.use(Prometheus(registry))
    counting.install()

    def number(name, **wanted):
        found = [
            sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == f"taskkit_{name}" and wanted.items() <= sample.labels.items()
        ]
        return sum(found) if found else None

    yield number
    counting.uninstall()
    counting.use()
    labels.forget()
