"""What is secret in a log line, by the names in ``TASKKIT["REDACT"]``.

Values under such a name are asterisks: in mappings at any depth, in the arguments of a call as Celery prints them, in
quoted pairs within a text, in the query of a URL. So is the password of any URL. A text that holds a secret without a
name goes through: nothing can tell it from any other.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from django_taskkit import conf
from django_taskkit.dlq.privacy import HIDDEN, tells_secret

_DEPTH = 20
_LONGEST = 20_000
"""Characters that a value in a text may have, where it is in brackets."""

# A password that nobody has quoted may have any of / ? # @ in it: it ends at the last @ before a space, a quote or the
# next URL.
_URL_PASSWORD = re.compile(r"(://[^\s/?#:@'\"]*:)(?:(?!://)[^\s'\"])+@")
_QUERY = re.compile(r"([?&;])([\w.%-]{1,64})=([^&\s'\"#;<>]+)")
# "Basic training" is none: without its header, what follows such a word has a digit, "=" or capitals in it.
_CREDENTIALS = re.compile(
    r"(?i:\b(authorization['\"]?\s*[:=]\s*['\"]?(?:(?:bearer|basic|token)\s+)?|bearer\s+))[\w.~+/=-]{8,}"
    r"|\b((?i:basic|token)\s+)(?=\S{0,64}?(?:[\d=]|[a-z][A-Z]))[\w.~+/=-]{8,}"
)
_SCHEMES = ("bearer", "basic", "token", "authorization")
_QUOTED = r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'|" + r'\\"(?:.*?)\\"' + r"|\\'(?:.*?)\\'"
# 'password': 'x', "password": "x", 'password': 5, \"password\": \"x\"; and password='x', password=x
# An escaped quote begins with the first of its backslashes: to try each of them takes time by the square of them.
_PAIR = re.compile(r"(?<!\\)(\\*['\"])([\w .-]{1,64})\1(\s*[:=]\s*)(b?(?:" + _QUOTED + r")|[^\s,}\])]+)", re.DOTALL)
_KEYWORD = re.compile(r"\b([A-Za-z_][\w-]{0,63})=")
_VALUE = re.compile("b?(?:" + _QUOTED + r")|[^\s,;&)}\]'\"]+", re.DOTALL)
_OPENS, _CLOSES = "([{", ")]}"


def secret_names() -> tuple[str, ...]:
    """Return ``TASKKIT["REDACT"]``, or what it is by default while the settings can't be read."""
    try:
        return conf.current().redact
    except Exception:  # a log line may come before the settings, or be about what is wrong with them
        return conf.Settings().redact


@lru_cache(maxsize=2_000)
def is_secret(name: str, names: tuple[str, ...]) -> bool:
    """Say whether ``name`` tells a secret; remembered, since the names in a log are always the same."""
    return tells_secret(name, names)


def without_secrets(value: Any, names: tuple[str, ...], depth: int = _DEPTH) -> Any:
    """Return a copy of ``value`` without its secrets; lists stay lists, tuples tuples, and objects what they are.

    A tuple of a telling name and a value is taken for a pair.
    """
    if isinstance(value, str):
        return text_without_secrets(value, names)
    if depth == 0 and isinstance(value, (Mapping, list, tuple)):
        return HIDDEN
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if is_secret(text_of(key), names) else without_secrets(item, names, depth - 1)
            for key, item in value.items()
        }
    if type(value) is tuple and len(value) == 2 and isinstance(value[0], (str, bytes)):
        name = value[0] if isinstance(value[0], str) else value[0].decode("latin-1")
        if is_secret(name, names):  # headers, as most libraries have them
            return value[0], HIDDEN
    if is_namedtuple(value):
        return value._make(without_secrets(value._asdict(), names, depth).values())
    if type(value) in (list, tuple):
        return type(value)(without_secrets(item, names, depth - 1) for item in value)
    return value


def is_namedtuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields") and hasattr(value, "_asdict")


def text_of(key: Any) -> str:
    """Return the key of a mapping as a text; never raises."""
    try:
        return str(key)
    except Exception as exc:
        return f"[a {type(key).__name__} whose str raised {type(exc).__name__}]"


def text_without_secrets(text: str, names: tuple[str, ...]) -> str:
    """Return ``text`` without the passwords of URLs, and without what stands beside a name that tells a secret."""
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1{HIDDEN}@", text)
    if "=" in text:
        text = _QUERY.sub(lambda found: _query(found, names), text)
        text = _keywords_hidden(text, names)
    if "'" in text or '"' in text:
        text = _pairs_hidden(text, names)
    lower = text.lower()
    if any(scheme in lower for scheme in _SCHEMES):
        text = _CREDENTIALS.sub(lambda found: f"{found[1] or found[2]}{HIDDEN}", text)
    return text


def arguments_without_secrets(task_name: str, args: str, kwargs: str, names: tuple[str, ...]) -> tuple[str, str]:
    """Return a call's arguments as Celery prints them (``argsrepr`` and ``kwargsrepr``) without secrets.

    Positional ones have the names that the task's signature gives them. Where the text can't be read, because it was
    shortened say, and one of these names tells a secret, all of them are asterisks.
    """
    hidden_at = [place for place, name in enumerate(_parameters(task_name)) if is_secret(name, names)]
    if hidden_at:
        values = _read(args)
        if isinstance(values, (list, tuple)):
            shown = [HIDDEN if place in hidden_at else value for place, value in enumerate(values)]
            args = repr(tuple(without_secrets(shown, names)))
        else:
            args = f"({HIDDEN})"
    else:
        args = text_without_secrets(args, names)
    by_name = _read(kwargs)
    if isinstance(by_name, dict):
        return args, repr(without_secrets(by_name, names))
    return args, text_without_secrets(kwargs, names)


def _query(found: re.Match[str], names: tuple[str, ...]) -> str:
    return f"{found[1]}{found[2]}={HIDDEN}" if is_secret(found[2], names) else found[0]


def _keywords_hidden(text: str, names: tuple[str, ...]) -> str:
    parts, at = [], 0
    for found in _KEYWORD.finditer(text):
        # A value is looked at for telling names only: that of any other may be a pair itself.
        value = _VALUE.match(text, found.end()) if found.start() >= at and is_secret(found[1], names) else None
        if value is not None:
            parts += [text[at : found.end()], HIDDEN]
            at = value.end()
    return "".join([*parts, text[at:]])


def _pairs_hidden(text: str, names: tuple[str, ...]) -> str:
    parts, at = [], 0
    while (found := _PAIR.search(text, at)) is not None:
        start, end = found.span(4)
        if not is_secret(found[2], names):
            # What follows the name may be a pair itself.
            parts.append(text[at:start])
            at = start
            continue
        if text[start] in _OPENS:
            end = _end_of_brackets(text, start)
        parts += [text[at:start], f"'{HIDDEN}'"]
        at = end
    return "".join([*parts, text[at:]])


def _end_of_brackets(text: str, start: int) -> int:
    """Return where what opens at ``start`` is closed; the end, or as far as is looked, if it is not."""
    level, last = 0, min(len(text), start + _LONGEST)
    for place in range(start, last):
        if text[place] in _OPENS:
            level += 1
        elif text[place] in _CLOSES:
            level -= 1
            if level == 0:
                return place + 1
    return last


def _read(text: str) -> Any:
    try:
        return ast.literal_eval(text) if len(text) <= _LONGEST else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _parameters(task_name: str) -> Sequence[str]:
    """Return the names of a task's parameters, if this process knows the task already; nothing is imported for it."""
    state: Any = sys.modules.get("celery._state")
    app = state.get_current_app() if state is not None else None
    task = app._tasks.get(task_name) if app is not None else None
    try:
        return list(inspect.signature(task.run).parameters) if task is not None else ()
    except (TypeError, ValueError):
        return ()
