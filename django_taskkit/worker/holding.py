"""Members of a chord or a group that die while their workflow waits for them: *held*.

Whatever kills a task, Celery ends it by one call of its result backend, ``mark_as_failure``: the state, the chord, the
rest of the chain, the error callbacks. For a member that is held that call does nothing, since its row and the state
:data:`HELD` were stored before. All else that Celery does with a failure goes on: ``Task.on_failure``, the signal
``task_failure``, the error in the log, the acknowledgement. So nobody who watches for errors misses one.

The call is made up for when the row is discarded, see :mod:`django_taskkit.dlq.handing_on`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from celery.app.task import Context

from django_taskkit import conf
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.models import Reason
from django_taskkit.envelope import HOLD_HEADER, Envelope

logger = logging.getLogger("django_taskkit")

HELD = "HELD"
"""The state of its result; to Celery it is one of a task that has not ended."""

NEVER_HELD = frozenset({Reason.EXPIRED, Reason.REVOKED, Reason.INVALID})
"""Whoever revokes a task, or has it expire, wants its workflow to know; what is no task can't be requeued as it is."""

_HELD = "taskkit_is_held"
_ERRBACKS_CALLED = "taskkit_errbacks_called"

_MARK = object()
"""What no message can carry: its headers become attributes of the request as well."""

_kept: set[Any] = set()


def install() -> None:
    """Give every request the marks, unset; an attribute of the class is not taken for a custom header."""
    for mark in (_HELD, _ERRBACKS_CALLED):
        setattr(Context, mark, None)


def is_to_be_held(task: Any, request: Any, envelope: Envelope, reason: Reason) -> bool:
    """Say whether the workflow of a message that died is to wait for it.

    ``task`` is None where this worker has no such task.
    """
    # A message of Celery's first protocol names no task in its headers, and could not be handed on.
    return bool(reason not in NEVER_HELD and wants_hold(task, request) and is_member(request) and envelope.task_name)


def wants_hold(task: Any, request: Any) -> bool:
    """Say what was chosen: by the message's header, else by the task, else by ``TASKKIT["HOLD_WORKFLOWS"]``."""
    choice = getattr(request, HOLD_HEADER, None)
    if choice is not None:
        return bool(choice)
    choice = getattr(task, "hold", None)  # of a project's own class it may be anything
    return choice if isinstance(choice, bool) else conf.current().hold_workflows


def is_member(request: Any) -> bool:
    """Say whether a message, or the end of the chain that follows it, is a member of a chord or a group."""
    if request.chord or (request.group and request.group_index is not None):
        return True
    chain = request.chain
    return isinstance(chain, (list, tuple)) and any(map(_is_member, chain))


def _is_member(step: Any) -> bool:
    """The same of a signature. A chord is one by its body; its own members don't count: they are not there yet."""
    if not isinstance(step, Mapping):
        return False
    options = step.get("options") or {}
    # The body of a chord bears the id of its members' group too, but has no place in it.
    if options.get("chord") or (options.get("group_id") and options.get("group_index") is not None):
        return True
    return step.get("subtask_type") == "chord" and _is_member((step.get("kwargs") or {}).get("body"))


def hold(request: Any, death: Death, *, task: Any, backend: Any) -> None:
    """Have the workflow of ``request`` wait, whose row is written; never raises."""
    setattr(request, _HELD, _MARK)
    if _ignores_result(task, request):
        return
    module, _dot, name = death.exception_class.rpartition(".")
    meta = {"exc_type": name, "exc_message": [death.exception_message], "exc_module": module or "builtins"}
    try:
        backend.store_result(request.id, meta, HELD, traceback=death.traceback, request=request)
    except Exception as exc:  # who asks for the result is shown PENDING, and the workflow waits all the same
        logger.error("task %s[%s] is held, and its result could not say so: %r", death.task_name, request.id, exc)


def is_held(request: Any) -> bool:
    """Say whether the workflow of ``request`` waits."""
    return getattr(request, _HELD, None) is _MARK


def _ignores_result(task: Any, request: Any) -> bool:
    ignores = vars(request).get("ignore_result")
    if ignores is None:
        ignores = getattr(task, "ignore_result", False)
    return bool(ignores) and not getattr(task, "store_errors_even_if_ignored", False)


@contextmanager
def kept_from_failing(task_id: Any) -> Iterator[None]:
    """Keep Celery from failing the task in this block, where it makes a request of its own that knows no workflow."""
    _kept.add(task_id)
    try:
        yield
    finally:
        _kept.discard(task_id)


def note_on(exc: BaseException, request: Any) -> None:
    """Note on what escapes from a pool process whether error callbacks were called there, for the worker to read."""
    if getattr(request, _ERRBACKS_CALLED, None) is _MARK:
        with suppress(Exception):  # of an odd class
            setattr(exc, _ERRBACKS_CALLED, True)


def read_note(exc: BaseException, request: Any) -> None:
    """Have no error callbacks called again if what a pool process reports says that they were."""
    if getattr(exc, _ERRBACKS_CALLED, False):
        setattr(request, _ERRBACKS_CALLED, _MARK)


def unless_held(mark: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``mark``, a backend's ``mark_as_failure`` or ``mark_as_retry``, which does nothing for what is held.

    And error callbacks are called once: where a task's own ``on_failure`` raises, Celery reports its failure again.
    """

    def mark_unless_held(
        self: Any, task_id: Any, exc: Any, traceback: Any = None, request: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        if request is None:
            return mark(self, task_id, exc, traceback, request, *args, **kwargs)
        if is_held(request) or task_id in _kept:
            return None
        if getattr(request, _ERRBACKS_CALLED, None) is _MARK:
            kwargs["call_errbacks"] = False
        marked = mark(self, task_id, exc, traceback, request, *args, **kwargs)
        if getattr(request, "errbacks", None) and kwargs.get("call_errbacks", True):
            setattr(request, _ERRBACKS_CALLED, _MARK)
        return marked

    return mark_unless_held
