"""What a preflight says: findings about one dead letter, and counts of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy

MOST_FINDINGS = 50
"""Different findings that a summary tells apart."""


class Color(TextChoices):
    """How a requeue looks."""

    GREEN = "green", gettext_lazy("green")
    AMBER = "amber", gettext_lazy("amber")
    RED = "red", gettext_lazy("red")


BY_SEVERITY = (Color.RED, Color.AMBER, Color.GREEN)


class Finding(NamedTuple):
    """One thing to know about a dead letter before it is requeued."""

    color: Color
    code: str
    """A name for programs: ``unregistered``, ``arguments``, ``undecodable``, ..."""
    text: str
    """A sentence for people, in their language."""


@dataclass(frozen=True)
class Verdict:
    """What was found, the worst first; nothing if all is well."""

    findings: tuple[Finding, ...] = ()

    @property
    def color(self) -> Color:
        return self.findings[0].color if self.findings else Color.GREEN

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(finding.text for finding in self.findings)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What was found in many."""

    colors: Mapping[Color, int]
    """How many are green, amber and red."""
    findings: Mapping[Finding, int] = field(default_factory=dict)
    """How many have each finding, the worst first; at most :data:`MOST_FINDINGS` different ones."""
    others: int = 0
    """Findings of further kinds."""
    complete: bool = True
    """False: a limit was reached, and the rest was not looked at."""

    @property
    def looked_at(self) -> int:
        return sum(self.colors.values())

    @property
    def reasons(self) -> dict[str, int]:
        return {finding.text: count for finding, count in self.findings.items()}
