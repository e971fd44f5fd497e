import pytest

from django_taskkit.routing import lanes


@pytest.fixture
def lay(station, settings):
    """``lay(broker=..., reports=Lane(...))``: give these lanes to the current app, as a settings module would.

    ``but`` are settings of Celery's that the project changes afterwards.
    """

    def lay(broker="memory://", but=None, **options):
        made = lanes(broker=broker, namespace="", **options) | (but or {})
        settings.TASKKIT_LANES = made.pop("TASKKIT_LANES")
        station.app.conf.update(broker_url=broker, **made)
        return station.app

    return lay
