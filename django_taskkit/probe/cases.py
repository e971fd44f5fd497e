"""What a probe tries, and what must come of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django_taskkit.dlq.models import Reason
from django_taskkit.probe.tasks import PREFIX

ALL = frozenset({"prefork", "threads", "gevent", "eventlet", "solo"})
FORKED = frozenset({"prefork"})
KILLABLE = frozenset({"prefork", "gevent"})


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to die."""

    name: str
    says: str
    reason: Reason
    also: tuple[Reason, ...] = ()
    """Reasons that are as good: pools see some deaths differently."""
    pools: frozenset[str] = ALL
    """Where it can happen; elsewhere it would take the worker with it, or the pool knows no such thing."""
    task: str = ""
    """The task that is sent; by default the one named as the case."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of ``apply_async``; what is in ``headers`` is changed in the message that Celery has made."""
    body: bytes | None = None
    """Sent instead of a task's own; ``%s`` stands for the message's id."""
    content_type: str = "application/json"
    results: bool = False
    """Whether it takes a result backend."""
    curable: bool = True
    """Whether the message can succeed once it is requeued."""
    resent: bool = False
    """Whether Celery sends the task once more by itself, and writes its body anew."""
    revoke: str = ""
    """``queued`` or ``running``: when it is revoked."""

    @property
    def task_name(self) -> str:
        return PREFIX + (self.task or self.name)


def _args(embed: Any = None, kwargs: Any = None) -> bytes:
    return json.dumps([["%s"], {} if kwargs is None else kwargs, {} if embed is None else embed]).encode()


LOST = (Reason.WORKER_LOST,)

CASES = (
    Case(name="exception", says="it raises", reason=Reason.EXCEPTION),
    Case(name="retries", says="its retries are used up", reason=Reason.RETRIES_EXHAUSTED, resent=True),
    Case(name="permanent", says="it says that it can never succeed", reason=Reason.PERMANENT),
    Case(name="deadline", says="it would be retried too late", reason=Reason.DEADLINE),
    Case(name="arguments", says="its arguments don't fit", task="exception", reason=Reason.EXCEPTION, curable=False,
         body=b'[["%s", "one too many"], {}, {}]'),
    Case(name="soft_time_limit", says="it passes the soft time limit", reason=Reason.TIME_LIMIT, pools=FORKED),
    Case(name="hard_time_limit", says="it passes the hard time limit", reason=Reason.TIME_LIMIT, pools=KILLABLE),
    Case(name="killed", says="its process gets SIGKILL, as by the OOM killer", reason=Reason.WORKER_LOST, pools=FORKED),
    Case(name="killed_late", says="... again and again", reason=Reason.DELIVERY_LIMIT, pools=FORKED),
    Case(name="os_exit", says="it calls os._exit()", reason=Reason.WORKER_LOST, pools=FORKED),
    Case(name="system_exit", says="it calls sys.exit()", reason=Reason.WORKER_LOST),
    Case(name="keyboard_interrupt", says="it raises KeyboardInterrupt", reason=Reason.WORKER_LOST),
    Case(name="base_exception", says="it raises a BaseException", reason=Reason.EXCEPTION, also=LOST),
    Case(name="memory_error", says="it raises MemoryError", reason=Reason.EXCEPTION),
    Case(name="memory_error_late", says="... acknowledged late", reason=Reason.EXCEPTION),
    Case(name="reject", says="it raises Reject", reason=Reason.REJECTED),
    Case(name="reject_late", says="... acknowledged late", reason=Reason.REJECTED),
    Case(name="reject_requeue", says="it raises Reject(requeue=True), acknowledged", reason=Reason.REJECTED),
    Case(name="reject_for_ever", says="... acknowledged late", reason=Reason.DELIVERY_LIMIT),
    Case(name="unserialisable", says="its result can't be serialised", reason=Reason.RESULT_LOST,
         results=True),
    Case(name="backend_down_failure", says="it fails and the result backend is down", reason=Reason.EXCEPTION),
    Case(name="backend_down_late", says="... acknowledged late", reason=Reason.EXCEPTION),
    Case(name="backend_down_success", says="it succeeds and the result backend is down", reason=Reason.RESULT_LOST),
    Case(name="before_start", says="its before_start raises", reason=Reason.EXCEPTION),
    Case(name="on_failure", says="its on_failure raises", reason=Reason.EXCEPTION),
    Case(name="on_retry", says="its on_retry raises", reason=Reason.RETRIES_EXHAUSTED, resent=True),
    Case(name="unregistered", says="no worker knows the task", reason=Reason.UNREGISTERED, curable=False),
    Case(name="undecodable", says="its body is cut off", task="exception", reason=Reason.UNDECODABLE, curable=False,
         body=b'[["%s'),
    Case(name="refused_content", says="its content type is refused", task="exception",
         reason=Reason.REFUSED_CONTENT, curable=False, body=b"%s", content_type="application/x-taskkit-probe"),
    Case(name="not_a_task", says="it names no task", task="exception", reason=Reason.INVALID, curable=False,
         body=b'{"hello": "%s"}', options={"headers": None}),
    Case(name="number", says="its body is a number", task="exception", reason=Reason.INVALID, curable=False,
         body=b"42"),
    Case(name="nothing", says="its body is null", task="exception", reason=Reason.INVALID, curable=False, body=b"null"),
    Case(name="empty_list", says="its body is an empty list", task="exception", reason=Reason.INVALID, curable=False,
         body=b"[]"),
    Case(name="too_long", says="its body has a part too many", task="exception", reason=Reason.INVALID, curable=False,
         body=b'[["%s"], {}, {}, {}]'),
    Case(name="kwargs", says="its keyword arguments are a list", task="exception", reason=Reason.INVALID, curable=False,
         body=_args(kwargs=[1])),
    Case(name="embed", says="its options are a number", task="exception", reason=Reason.INVALID, curable=False,
         body=_args(embed=7)),
    Case(name="bad_eta", says="its eta is no date", task="exception", reason=Reason.INVALID, body=_args(),
         options={"headers": {"eta": "soon"}}),
    Case(name="bad_expires", says="its expires is no date", task="exception", reason=Reason.INVALID, body=_args(),
         options={"headers": {"expires": "soon"}}),
    Case(name="expired", says="it is too late", task="exception", reason=Reason.EXPIRED, body=_args(),
         options={"headers": {"expires": "2020-01-01T00:00:00+00:00"}}),
    Case(name="revoked", says="it is revoked before it runs", task="exception", reason=Reason.REVOKED, revoke="queued"),
    Case(name="terminated", says="it is revoked and terminated", task="waiting", reason=Reason.REVOKED,
         pools=KILLABLE, revoke="running"),
)  # fmt: skip
