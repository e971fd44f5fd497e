"""Secrets within an argument that is edited: each is a mark meanwhile, and comes back where its mark stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.translation import gettext as _

from django_taskkit.dlq.privacy import HIDDEN, tells_secret
from django_taskkit.exceptions import TaskkitError


class SecretError(TaskkitError):
    """A secret may not be where it was put, or may not be changed."""


class Hidden:
    """A value without its secrets.

    Args:
        value: decoded JSON or the like.
        names: parts of names that tell a secret.
    """

    def __init__(self, value: Any, names: Sequence[str]) -> None:
        self._names = names
        self._secrets: dict[str, Any] = {}
        self.shown = self._hide(value)
        """A copy of ``value`` with a mark of its own for each secret: ``"******** 1"``."""

    @property
    def hides(self) -> bool:
        """Whether there was a secret."""
        return bool(self._secrets)

    def restored(self, edited: Any, *, may_change: bool) -> Any:
        """Return ``edited`` with what was hidden in the place of its marks.

        Raises:
            SecretError: a mark is under a name that tells no secret, where everyone would see what it stands for; or,
                unless ``may_change``, a secret was changed, added or taken out.
        """
        left: list[str] = []
        value = self._restore(edited, may_change, left)
        if not may_change and sorted(left) != sorted(self._secrets):
            raise SecretError(_("What is hidden was taken out or repeated, which you may not do."))
        return value

    def _hide(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {
                key: self._mark(item) if tells_secret(key, self._names) else self._hide(item)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self._hide(item) for item in value]
        return value

    def _mark(self, secret: Any) -> str:
        mark = f"{HIDDEN} {len(self._secrets) + 1}"
        self._secrets[mark] = secret
        return mark

    def _restore(self, value: Any, may_change: bool, left: list[str]) -> Any:
        if isinstance(value, Mapping):
            return {
                key: self._secret(item, may_change, left)
                if tells_secret(key, self._names)
                else self._restore(item, may_change, left)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self._restore(item, may_change, left) for item in value]
        if isinstance(value, str) and value in self._secrets:
            raise SecretError(_("%(mark)s can only stay under a name that tells a secret.") % {"mark": repr(value)})
        return value

    def _secret(self, value: Any, may_change: bool, left: list[str]) -> Any:
        if isinstance(value, str) and value in self._secrets:
            left.append(value)
            return self._secrets[value]
        if isinstance(value, str) and value.startswith(HIDDEN):
            raise SecretError(_("%(mark)s stands for nothing.") % {"mark": repr(value)})
        if not may_change:
            raise SecretError(_("What is hidden may be changed only by those who may see redacted arguments."))
        return value
