"""A dead letter as a test: it fails as the task did, and passes once the cause is gone."""

from __future__ import annotations

import inspect
import keyword
import re
import sys
from collections.abc import Mapping
from typing import Any

from celery import Celery

from django_taskkit import conf
from django_taskkit.dlq.literals import Literals, NoLiteralError
from django_taskkit.dlq.models import DeadLetter, Reason
from django_taskkit.dlq.privacy import HIDDEN, redacted, tells_secret
from django_taskkit.envelope import UndecodableError
from django_taskkit.exceptions import TaskkitError

TRACEBACK_LINES = 40
"""Lines of the end of a traceback that go into the test."""

LINE_LENGTH = 200
"""Characters of such a line."""

_TAKEN = frozenset({"args", "kwargs", "datetime", "Decimal", "UUID", "pytest", "monkeypatch", "current_app", "float"})
"""Names that the test uses itself."""

_FROM_CELERY = "from celery import current_app"

_BY_EXCEPTION = (Reason.EXCEPTION, Reason.RETRIES_EXHAUSTED, Reason.PERMANENT, Reason.DEADLINE)

_BY_KILL = (Reason.WORKER_LOST, Reason.DELIVERY_LIMIT, Reason.TIME_LIMIT)


class ReproductionError(TaskkitError):
    """No test can be made of a dead letter."""


def as_pytest(dead_letter: DeadLetter, app: Celery) -> str:
    """Return a file for pytest with one test, which runs the task of ``dead_letter`` once, without retries.

    Arguments under a telling name (``TASKKIT["REDACT"]``) are asterisks in it. All text that comes from a worker or a
    message is in comments or string literals, and can't get out of them.

    Raises:
        ReproductionError: the arguments can't be read, or hold values that can't be written as Python.
    """
    literals = Literals()
    try:
        args, kwargs = _arguments(dead_letter)
        task = _task(app, dead_letter.task_name)
        hidden_args, hidden_kwargs = _hidden(task, args, kwargs)
        sources = [literals.of(tuple(hidden_args), 4), literals.of(hidden_kwargs, 4)]
    except (UndecodableError, NoLiteralError) as exc:
        raise ReproductionError(f"No test can be made of {dead_letter}: {exc}.") from exc
    where, name, lookup = _reference(task, dead_letter.task_name)
    secrets = ["    # Secrets are asterisks here (TASKKIT['REDACT']): put in values that do."]
    is_redacted = [hidden_args, hidden_kwargs] != redacted([args, kwargs], ())
    parts = [
        _docstring(dead_letter),
        "",
        *_imports(literals.imports, where),
        "",
        "",
        "@pytest.mark.django_db",
        f"def test_{_identifier(dead_letter.task_name)}_does_not_fail(monkeypatch):",
        *lookup,
        "    def no_retry(*args, exc=None, **options):",
        '        raise exc or AssertionError("the task asked to be retried")',
        "",
        "    # Eagerly, a retry would run the task again at once.",
        f'    monkeypatch.setattr({name}, "retry", no_retry)',
        "",
        *(secrets if is_redacted else []),
        f"    args = {sources[0]}",
        f"    kwargs = {sources[1]}",
        "",
        f"    {name}.apply(args, kwargs, task_id={str(dead_letter.task_id)!r}, throw=True)",
        "",
        "",
        *_history(dead_letter),
    ]
    return "\n".join(parts) + "\n"


def _imports(standard: set[str], where: str) -> list[str]:
    blocks = [sorted(standard, key=lambda line: (line.startswith("from"), line)), ["import pytest"], [where]]
    if where == _FROM_CELERY:
        blocks[1:] = [["import pytest", where]]
    text = "\n\n".join("\n".join(block) for block in blocks if block)
    return text.split("\n")


def _arguments(dead_letter: DeadLetter) -> tuple[Any, Any]:
    args, kwargs, _embed = dead_letter.envelope.payload()
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, Mapping):
        raise UndecodableError("the arguments are no list and no mapping, so no task takes them")
    return args, kwargs


def _task(app: Celery, name: str) -> Any:
    # A process that is no worker has mostly not imported the tasks.
    app.loader.import_default_modules()
    return app.tasks.get(name)


def _hidden(task: Any, args: Any, kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments with everything hidden that has a telling name, positional ones by their parameter's."""
    names = conf.current().redact
    hidden = redacted(list(args), names)
    for position, name in enumerate(_parameters(task, len(hidden))):
        if tells_secret(name, names):
            hidden[position] = HIDDEN
    return hidden, redacted(kwargs, names)


def _parameters(task: Any, count: int) -> list[str]:
    """Return the names of the parameters that ``count`` positional arguments are for."""
    if task is None:
        return []
    try:
        parameters = inspect.signature(task.run).parameters.values()
    except (TypeError, ValueError):
        return []
    found: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            found += [parameter.name] * (count - len(found))
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            found.append(parameter.name)
    return found[:count]


def _reference(task: Any, name: str) -> tuple[str, str, list[str]]:
    """Return the import that the test needs, the name of the task in it, and what the test says first to get it."""
    module = getattr(task, "__module__", "") or ""
    for attribute in dict.fromkeys([getattr(getattr(task, "run", None), "__name__", ""), name.rpartition(".")[2]]):
        found = getattr(sys.modules.get(module), attribute, None) if attribute else None
        if getattr(found, "name", None) == name and all(map(_is_name, [*module.split("."), attribute])):
            if attribute in _TAKEN:
                return f"from {module} import {attribute} as task", "task", []
            return f"from {module} import {attribute}", attribute, []
    return (
        _FROM_CELERY,
        "task",
        ["    current_app.loader.import_default_modules()", f"    task = current_app.tasks[{name!r}]", ""],
    )


def _is_name(text: str) -> bool:
    return text.isascii() and text.isidentifier() and not keyword.iskeyword(text) and text != "__main__"


def _identifier(name: str) -> str:
    words = re.sub(r"[^0-9A-Za-z]+", "_", name.rpartition(".")[2]).strip("_").lower()
    return words[:60] or "the_task"


def _docstring(dead_letter: DeadLetter) -> str:
    cause = dead_letter.exception_class or dead_letter.get_reason_display()
    lines = [
        f'"""{_quoted(dead_letter.task_name)} died of {_quoted(cause)} at {dead_letter.died_at.isoformat()}.',
        "",
        "The test runs it once more with the same arguments. It fails until the cause is gone.",
        "",
        f"Task id: {_quoted(dead_letter.task_id)}",
        f"Reason: {_quoted(dead_letter.reason)}",
    ]
    if dead_letter.body_ran:
        lines += ["", "The task itself had ended well; what followed it failed, which this test can't show."]
    elif dead_letter.reason not in _BY_EXCEPTION:
        lines += ["", "It did not die of an exception of its own, so a run in the process of a test may well pass."]
        if dead_letter.reason in _BY_KILL:
            lines += ["A task that kills its process kills pytest as well; one that hangs needs a timeout."]
    return "\n".join([*lines, '"""'])


def _quoted(text: str) -> str:
    return _printable(text).replace("\\", "\\\\").replace('"', '\\"')


def _printable(text: str) -> str:
    """Return ``text`` on one line, with everything escaped that an editor would not show as it is."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text
    )


def _history(dead_letter: DeadLetter) -> list[str]:
    text = dead_letter.traceback or f"{dead_letter.exception_class}: {dead_letter.exception_message}"
    lines = text.splitlines()
    left_out = len(lines) - TRACEBACK_LINES
    shown = [_printable(line)[:LINE_LENGTH] for line in lines[-TRACEBACK_LINES:]]
    note = [f"# ... {left_out} lines ..."] if left_out > 0 else []
    return ["# What the worker said:", "#", *note, *(f"# {line}".rstrip() for line in shown)]
