"""The chords of django-celery-results, which count reports where members have to be counted.

Every report takes one from its counter. A member that is delivered twice, or reported twice as after a hard time
limit, then stands for another one that is still running: the body never starts, and nobody is told. Installed where
the project has django-celery-results, which is no dependency of ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from itertools import islice
from typing import Any

from celery import maybe_signature, states
from celery.exceptions import ChordError
from celery.result import ResultSet, allow_join_result
from django.apps import apps
from django.db import router, transaction
from django.db.models import Case, F, When

logger = logging.getLogger("django_taskkit")

ASK_FOR = 500
"""How many results one query asks for; databases limit the parameters of a query."""


def install() -> None:
    """Put our report of a chord's member in the place of django-celery-results', if that is installed; once."""
    if not apps.is_installed("django_celery_results"):
        return
    from django_celery_results.backends.database import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        DatabaseBackend,
    )

    stock = DatabaseBackend.on_chord_part_return
    if not getattr(stock, "has_taskkit", False):
        DatabaseBackend.on_chord_part_return = _counting_members(stock)


def _counting_members(stock: Callable[..., None]) -> Callable[..., None]:
    """Return what does the same as ``stock`` however often a member is reported."""

    @wraps(stock)
    def on_chord_part_return(self: Any, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        if request.group and request.id:
            _keep_result(self, request, state, result)
            _count(self, request)

    on_chord_part_return.has_taskkit = True  # type: ignore[attr-defined]
    return on_chord_part_return


def _keep_result(backend: Any, request: Any, state: str, result: Any) -> None:
    """Store the result of a member that ignores it: the body needs it, and it says that the member has ended."""
    if not any(_in_state(backend, [request.id], states.READY_STATES)):
        backend.store_result(request.id, result, state, request=request)


def _count(backend: Any, request: Any) -> None:
    """Start the body, or fail it, if this was the last member.

    The counter counts reports still, as workers without django_taskkit do; when it says that there were enough, the
    results say whether all the members have ended. It goes in the transaction that the body is published in: killed in
    between, the member is delivered again and starts the body after all.
    """
    model: Any = apps.get_app_config("django_celery_results").get_model("ChordCounter")
    alias = router.db_for_write(model)
    counters = model.objects.using(alias).filter(group_id=request.group)
    less_one = Case(When(count__gt=0, then=F("count") - 1), default=0)
    error = None
    with transaction.atomic(using=alias):
        # What writes first has the row's lock, on SQLite as well.
        if not counters.update(count=less_one):
            logger.debug("the chord of group %s has no counter: its body was started before", request.group)
            return
        counter = counters.get()
        if counter.count:
            return
        members = counter.group_result(app=backend.app)
        ids = set(_ids(members))
        if ids.difference(_in_state(backend, ids, states.READY_STATES)):
            return
        body = maybe_signature(request.chord, app=backend.app)
        counters.delete()
        error = _start(backend, body, members)
    if error is not None:  # not in the transaction, which what the error callbacks do could break
        logger.error("the chord of group %s failed: %s", request.group, error)
        try:
            raise error
        except ChordError:  # whose traceback Celery takes from the stack
            backend.app.backend.chord_error_from_stack(body, error)


def _start(backend: Any, body: Any, members: Any) -> ChordError | None:
    """Publish the body; return what to fail it with where that can't be."""
    try:
        with allow_join_result():
            join = members.join_native if members.supports_native_join else members.join
            results = join(timeout=backend.app.conf.result_chord_join_timeout, propagate=True)
    except Exception as exc:
        failed = next(_in_state(backend, _ids(members), states.PROPAGATE_STATES), None)
        return _chord_error(f"Dependency {failed} raised {exc!r}" if failed else repr(exc), exc)
    try:
        body.delay(results)
    except Exception as exc:
        return _chord_error(f"Callback error: {exc!r}", exc)
    return None


def _chord_error(message: str, cause: Exception) -> ChordError:
    error = ChordError(message)
    error.__cause__ = cause
    return error


def _ids(members: Any) -> Iterator[str]:
    """The ids of a chord's members, also of those in groups within its header."""
    for member in members.results:
        if isinstance(member, ResultSet):
            yield from _ids(member)
        else:
            yield member.id


def _in_state(backend: Any, ids: Iterable[str], wanted: frozenset[str]) -> Iterator[str]:
    """Those of ``ids`` in a state that is wanted, by the database that is written to: a replica may be late."""
    results = backend.TaskModel._default_manager.using(router.db_for_write(backend.TaskModel))
    remaining = iter(ids)
    while some := list(islice(remaining, ASK_FOR)):
        yield from results.filter(task_id__in=some, status__in=wanted).values_list("task_id", flat=True)
