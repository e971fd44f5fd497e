"""What Celery does when a task dies: one row per case and Celery minor, measured, never copied from documentation.

``test_celery_contract.py`` runs every case on the installed Celery and fails where this table is no longer true.
``python tests/live/contract_table.py`` prints it as Markdown; ``... docs/celery-contract.md`` writes it there.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MINORS = ("5.5", "5.6", "5.7")


@dataclass(frozen=True)
class Outcome:
    """What was seen. A call is named by its process; ``empty``: the request it was given was not this task's."""

    on_failure: tuple[str, ...] = ()
    task_failure: tuple[str, ...] = ()
    other_signals: tuple[str, ...] = ()
    state: str = "PENDING"
    message: str = "gone"


@dataclass(frozen=True)
class Case:
    """One way to die, how to bring it about, and what came of it in each Celery minor."""

    name: str
    title: str
    outcomes: dict[str, Outcome]
    done_when_log_matches: str
    task: str = ""
    send: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, Any] | None = None
    revoked_first: bool = False
    own_worker: dict[str, Any] | None = None
    worker_survives: bool = True


def in_all(**outcome: Any) -> dict[str, Outcome]:
    return dict.fromkeys(MINORS, Outcome(**outcome))


def before_and_since_5_7(before: Outcome, since: Outcome) -> dict[str, Outcome]:
    return {"5.5": before, "5.6": before, "5.7": since}


FAILED_IN_CHILD = in_all(on_failure=("child",), task_failure=("child",), state="FAILURE")
SILENT = in_all()
SILENT_BEFORE_5_7 = before_and_since_5_7(Outcome(), Outcome(task_failure=("main, empty",), state="FAILURE"))
RAISED = "raised unexpected"

CASES = (
    Case("exception", "the task raises", FAILED_IN_CHILD, RAISED),
    Case(
        "wrong_arity",
        "the task is called with the wrong arguments",
        FAILED_IN_CHILD,
        RAISED,
        task="contract.exception",
        send={"args": (1, 2, 3)},
    ),
    Case(
        "retries_exhausted",
        "`autoretry_for` has used up its one retry",
        in_all(on_failure=("child",), task_failure=("child",), other_signals=("task_retry",), state="FAILURE"),
        RAISED,
    ),
    Case("unserialisable_result", "the return value cannot be serialised", FAILED_IN_CHILD, RAISED),
    Case("soft_time_limit", "soft time limit", FAILED_IN_CHILD, RAISED),
    Case(
        "hard_time_limit",
        "hard time limit",
        before_and_since_5_7(
            Outcome(task_failure=("main, empty",), state="FAILURE"),
            Outcome(on_failure=("main, empty",), task_failure=("main", "main, empty"), state="FAILURE"),
        ),
        "Hard time limit",
    ),
    Case(
        "child_killed",
        "the pool's child is killed (SIGKILL)",
        before_and_since_5_7(
            Outcome(task_failure=("main, empty",), state="FAILURE"),
            Outcome(task_failure=("main",), state="FAILURE"),
        ),
        "WorkerLostError",
    ),
    Case(
        "system_exit",
        "`sys.exit()` in the task",
        before_and_since_5_7(Outcome(), Outcome(task_failure=("main",), state="FAILURE")),
        "WorkerLostError|Pool callback raised",
    ),
    Case(
        "memory_error",
        "the task raises `MemoryError`: the whole worker ends",
        FAILED_IN_CHILD,
        "MemoryError",
        own_worker={},
        worker_survives=False,
    ),
    Case("reject", "`Reject(requeue=False)`", SILENT_BEFORE_5_7, "reject requeue=False"),
    Case("ignore", "`Ignore`", SILENT, "ignored"),
    Case("retry_unpublished", "`self.retry()` cannot publish", SILENT_BEFORE_5_7, "reject requeue=False"),
    Case(
        "hook_raises",
        "the task raises, and so does its `on_failure`",
        before_and_since_5_7(
            Outcome(
                on_failure=("child", "child, empty"),
                task_failure=("main, empty",),
                other_signals=("task_internal_error",),
                state="FAILURE",
            ),
            Outcome(
                on_failure=("child", "child, empty"),
                task_failure=("main",),
                other_signals=("task_internal_error",),
                state="FAILURE",
            ),
        ),
        "RuntimeError: on_failure raised",
    ),
    Case(
        "backend_down",
        "the task raises, and the result backend cannot be reached",
        in_all(other_signals=("task_internal_error",)),
        "Connection refused",
        task="contract.exception",
        own_worker={
            "result_backend": "redis://127.0.0.1:{free_port}/0",
            "result_backend_transport_options": {
                "retry_policy": {"max_retries": 1, "interval_start": 0, "interval_max": 0}
            },
        },
    ),
    Case(
        "unregistered",
        "no task of that name is registered",
        in_all(other_signals=("task_unknown",), state="FAILURE"),
        "unregistered task",
    ),
    Case(
        "expired",
        "the message has expired",
        in_all(other_signals=("task_revoked",), state="REVOKED"),
        "Discarding revoked task",
        task="contract.exception",
        send={"expires": -60},
    ),
    Case(
        "revoked",
        "revoked before it was delivered",
        in_all(other_signals=("task_revoked",), state="REVOKED"),
        "Discarding revoked task",
        task="contract.exception",
        revoked_first=True,
    ),
    Case(
        "undecodable",
        "the body is not JSON",
        SILENT,
        "decode message body",
        raw={"body": b"[[], {", "content_type": "application/json"},
    ),
    Case(
        "refused_content",
        "the content type is refused (pickle)",
        in_all(other_signals=("task_rejected",)),
        "invalid task message",
        raw={"body": b"\x80\x04]\x94.", "content_type": "application/x-python-serialize"},
    ),
    Case(
        "wrong_shape",
        "the body is JSON and not a task call (`42`): the whole worker ends",
        in_all(message="in the queue"),
        "Unrecoverable error",
        raw={"body": b"42", "content_type": "application/json"},
        own_worker={},
        worker_survives=False,
    ),
)


def expected(case: Case, celery_version: str) -> tuple[str, Outcome]:
    """The row for that Celery; a minor that nobody has measured is held to the newest one that was."""
    minor = ".".join(celery_version.split(".")[:2])
    known = minor if minor in case.outcomes else MINORS[-1]
    return known, case.outcomes[known]


INTRODUCTION = """\
# What Celery does when a task dies

Generated by `python tests/live/contract_table.py docs/celery-contract.md`; do not edit.

Plain Celery, without django-taskkit: prefork pool, Redis, acknowledging early (the default). Every row was measured,
and `tests/live/test_celery_contract.py` measures it again on every Celery we support: a release that changes one of
them fails the build.

`on_failure` is `Task.on_failure`, `task_failure` is the signal. *child* and *main* name the process in which it was
called (the pool's child, the worker's parent); *empty* says that the request it could look at was not this task's, so
that queue, headers and retries are unknown. Result `PENDING` means that nothing was ever stored. **nothing** marks
the deaths after which no hook and no signal had been called.

| what happened | Celery | `on_failure` | `task_failure` | other signals | result | message |
|---|---|---|---|---|---|---|
"""


def markdown() -> str:
    return INTRODUCTION + "".join(line + "\n" for case in CASES for line in _lines(case))


def _lines(case: Case) -> list[str]:
    """One line per outcome, with all the versions that share it."""
    versions: dict[Outcome, list[str]] = {}
    for minor, outcome in case.outcomes.items():
        versions.setdefault(outcome, []).append(minor)
    return [
        _line(case.title, "all" if len(minors) == len(MINORS) else ", ".join(minors), outcome)
        for outcome, minors in versions.items()
    ]


def _line(title: str, minors: str, outcome: Outcome) -> str:
    called = outcome.on_failure or outcome.task_failure or outcome.other_signals
    others = ", ".join(f"`{name}`" for name in outcome.other_signals) or ("–" if called else "**nothing**")
    cells = (
        *(title, minors, _calls(outcome.on_failure), _calls(outcome.task_failure)),
        *(others, f"`{outcome.state}`", outcome.message),
    )
    return f"| {' | '.join(cells)} |"


def _calls(calls: tuple[str, ...]) -> str:
    return f"{len(calls)}: {' + '.join(calls).replace(', empty', ' (empty)')}" if calls else "–"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(markdown())
    else:
        print(markdown(), end="")
