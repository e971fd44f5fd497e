"""Who may ask how a task stands: a signed token in the place of the task's id.

A token can't be guessed or changed, says whom it was made for, and is good for a day. What it holds is signed and not
encrypted: whoever has it can read it.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, Final

from django.core import signing

MAX_AGE: Final = 86_400
"""Seconds for which a token is good."""

_SALT: Final = "django_taskkit.results.tokens:1"
"""The number goes up when a token holds something else, so that older ones are refused and not misread."""


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """What a token points to, and for whom."""

    alias: str
    """The cache in which the task's state is kept."""
    task_id: str
    user: str = ""
    """Primary key of the user that it was made for; empty: whoever has it may use it."""
    then: str = ""
    """Where to go when the task is done; empty: nowhere. Check it with :func:`safe_target` before anybody goes."""
    label: str = ""
    """What the task is called on a page."""


def make_token(*, alias: str, task_id: str, user: Any = None, then: str = "", label: str = "") -> str:
    """Return a token with which one can ask how the task stands.

    Args:
        alias: the cache that the state is kept in, ``state.cache``.
        task_id: ``state.task_id``.
        user: ``request.user`` or a primary key. The token is good for this user alone; None or an anonymous user: for
            whoever has it.
        then: where a page goes when the task is done.
        label: what the task is called on the page.
    """
    pointer = Pointer(alias=alias, task_id=task_id, user=user_key(user), then=str(then), label=str(label))
    # Not compressed: such a token begins with a dot, and many a web server refuses what looks like a hidden file.
    return signing.dumps(astuple(pointer), salt=_SALT)


def read_token(token: str, *, max_age: int = MAX_AGE) -> Pointer:
    """Return what ``token`` points to.

    Raises:
        SignatureExpired: it was made more than ``max_age`` seconds ago.
        BadSignature: it was not made here, or not with this ``SECRET_KEY`` (``SECRET_KEY_FALLBACKS`` count).
    """
    try:
        alias, task_id, user, then, label = signing.loads(token, salt=_SALT, max_age=max_age)
    except UnicodeError as exc:
        raise signing.BadSignature("a token has no such characters") from exc
    return Pointer(alias=alias, task_id=task_id, user=user, then=then, label=label)


def user_key(user: Any) -> str:
    """Return the primary key of ``user`` as a token holds it; empty for None and for an anonymous user."""
    key = getattr(user, "pk", None) if hasattr(user, "is_authenticated") else user
    return "" if key is None else str(key)
