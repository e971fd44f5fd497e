"""Does the place work where workers share budgets, breakers and idempotency keys?"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from django_taskkit.doctor.finding import Finding, error, ok, warning
from django_taskkit.doctor.site import Site
from django_taskkit.exceptions import StoreError
from django_taskkit.stores.opening import NoStoreError, shared_store
from django_taskkit.stores.visibility import problems

STORE = "store"


def store(site: Site) -> Iterator[Finding]:
    """``store``: what is written to ``TASKKIT["SHARED_STORE"]`` can be read, and other processes see it."""
    found = list(problems(site.app))
    for problem in found:
        yield (error if problem.unusable else warning)(STORE, problem.text, problem.hint)
    if found:
        return
    try:
        place = shared_store()
    except NoStoreError as exc:
        yield ok(STORE, f"No task needs a shared store, and there is none: {exc}.")
        return
    key, value = f"taskkit:doctor:{uuid.uuid4().hex}", b"tried"
    try:
        place.swap(key, None, value, ttl=60)
        if place.read(key) != value:
            yield error(
                STORE, "The shared store took a value and did not give it back.", "Look at SHARED_STORE's cache."
            )
            return
        place.swap(key, value, None, ttl=60)
    except StoreError as exc:
        yield error(
            STORE,
            f"The shared store does not work: {exc}",
            "Start the server behind TASKKIT['SHARED_STORE'], or name another; meanwhile budgets and breakers stand "
            "open.",
        )
        return
    yield ok(STORE, "The shared store (TASKKIT['SHARED_STORE']) took a value and gave it back.")
