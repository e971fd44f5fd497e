"""Does the result backend keep a result, and for how long?"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.db import connections

from django_taskkit.doctor.finding import Finding, error, ok, unknown, warning
from django_taskkit.doctor.running import said_by
from django_taskkit.doctor.site import Site
from django_taskkit.observability.deadline import within

RESULTS = "results"
EXPIRY = "result-expiry"

NAME = "celery.backend_cleanup"
"""The task by which backends in a database delete what has expired; beat has to start it."""


def results(site: Site) -> Iterator[Finding]:
    """``results``: one that is stored can be read; ``result-expiry``: it goes by itself, and not too soon."""
    if not site.app.conf.result_backend:
        yield ok(RESULTS, "No result backend is set.")
        return
    if str(site.app.conf.result_backend).partition(":")[0] == "rpc":
        yield unknown(RESULTS, "rpc:// keeps results in queues of whoever sends; there is no place to look at.")
        return
    try:
        kept = within(site.patience, lambda: _try(site), "doctor.results")
    except Exception as exc:
        said = f"no answer in {site.patience:g} s" if isinstance(exc, TimeoutError) else said_by(exc)
        yield error(
            RESULTS,
            f"The result backend does not work: {said}. Tasks that succeed can't be told from those that don't, and "
            "callers that wait for results wait in vain.",
            "Start it, or correct result_backend; tasks that need no result: task_ignore_result = True.",
        )
        return
    yield ok(RESULTS, f"The result backend ({kept['kind']}) took a result and gave it back.")
    yield expiry(kept, site.app.conf.result_expires)


def _try(site: Site) -> dict[str, Any]:
    """Store a result under an id that nobody has, read it, see when it expires, and forget it."""
    backend: Any = site.app.backend
    task_id = f"taskkit-doctor-{uuid.uuid4()}"
    try:
        backend.store_result(task_id, "tried", "SUCCESS")
        found = backend.get_task_meta(task_id, cache=False)
        if found.get("result") != "tried":
            raise OSError("it took a result and did not give it back")
        return {"kind": type(backend).__name__, **_life(backend, task_id)}
    finally:
        with suppress(Exception):
            backend.forget(task_id)
        connections.close_all()  # this thread's own: the backend may be Django's database


def _life(backend: Any, task_id: str) -> dict[str, Any]:
    """Return in how many seconds the result goes by itself, where that can be seen."""
    client: Any = getattr(backend, "client", None)
    if hasattr(client, "ttl") and hasattr(backend, "get_key_for_task"):
        return {"ttl": int(client.ttl(backend.get_key_for_task(task_id)))}
    # Those in a database have the expiry in the row, and a task that deletes.
    return {"cleaned": True} if hasattr(backend, "cleanup") and "atabase" in type(backend).__name__ else {}


def expiry(kept: dict[str, Any], configured: Any) -> Finding:
    seconds = configured.total_seconds() if isinstance(configured, timedelta) else configured
    if kept.get("ttl") == -1 or not seconds:
        return warning(
            EXPIRY,
            "Results never expire, and will fill the result backend.",
            "Set result_expires to the seconds for which somebody may ask for a result.",
        )
    if kept.get("cleaned"):
        return ok(EXPIRY, f"Results may be deleted after {_time(seconds)}; beat starts {NAME} for that, once a day.")
    ttl = kept.get("ttl")
    return ok(EXPIRY, f"Results expire after {_time(seconds if ttl is None else ttl)}.")


def _time(seconds: Any) -> str:
    """Return a time as people say it; nobody reads 2.592e+06 s."""
    days = float(seconds) / 86400
    return f"{days:g} days" if days >= 2 and days == int(days) else f"{float(seconds):.0f} s"
