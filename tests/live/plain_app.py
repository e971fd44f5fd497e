"""A plain Celery app (no Django, none of our package) with one task."""

from __future__ import annotations

import harness
from celery import Celery

app = Celery("plain", fixups=[])
app.conf.update(harness.celery_settings())


@app.task(name="plain.nothing", rate_limit="100/s")
def nothing():
    return None
