"""Names of settings that Celery does not read: it says nothing, and takes its default."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from celery import Celery
from django.core.checks import CheckMessage

from django_taskkit.checks.configuration import OLD_NAMES, given, known_keys, named, readable, settings_of
from django_taskkit.checks.registration import error, warning

SURE = 0.9
"""How alike a name and a setting's must be, from 0 to 1, for a typo that nobody meant: an error."""

LIKELY = 0.85
"""The same for a guess that is worth a warning."""

TELLING = ("concurrency",)
"""Ends of names of one word that nobody takes for anything else."""

OF_OTHERS = ("EMAIL_", "HAYSTACK_", "ONCE", "PROGRESS_", "REDBEAT_", "SINGLETON_")
"""How settings of well-known packages go on after the prefix: their own, which Celery has no business with."""

OLD_PREFIXES = ("CELERY_", "CELERYD_", "CELERYBEAT_", "BROKER_")
"""What settings began with before Celery 4, and still do without a namespace."""

UNMISTAKABLE = ("CELERYD_", "CELERYBEAT_")
"""Those of them that stand for a Celery setting in a project with a namespace too."""


def unreadable(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.E012: settings begin with CELERY_, and the app looks for none of that form."""
    namespace = app.namespace  # type: ignore[attr-defined]
    if namespace and namespace.rstrip("_") != "celery" and _has_names_of(app):
        return  # those that begin with CELERY_ may be another app's
    names = readable(app)
    known = known_keys()
    ignored = sorted(
        name
        for source, _is_code in given(app)
        for name in source
        if name.startswith("CELERY_") and name not in names and name.removeprefix("CELERY_").lower() in known
    )
    if ignored:
        has = f"has the namespace {namespace!r}" if namespace else "has no namespace"
        yield error(
            "E012",
            f"Celery does not read {named(ignored)}: the app {has}, and looks for other names.",
            'Write app.config_from_object("django.conf:settings", namespace="CELERY").',
        )


def _has_names_of(app: Celery) -> bool:
    """Say whether anything begins as the settings of this app do."""
    prefix = settings_of(app).prefix or ""
    return any(_is_text(name) and name.startswith(prefix) for source, _is_code in given(app) for name in source)


def misspelt(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.E011: a name that can only be a typo, or an old one that is not read; taskkit.W021: one that may be."""
    for name, meant, likeness in _unknown(app):
        if meant and likeness >= SURE:
            yield error(
                "E011",
                f"Celery has no setting {name}: it is ignored; did you mean {meant}?",
                f"Rename it to {meant}.",
            )
        elif meant:
            yield warning(
                "W021",
                f"Celery has no setting {name}: if it is meant for Celery, it is ignored; did you mean {meant}?",
                "Rename it; one of your own needs a name that doesn't begin like Celery's.",
            )


def strange(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W021: a name in Celery's namespace that is like none of Celery's."""
    for name, meant, _likeness in _unknown(app):
        if not meant:
            yield warning(
                "W021",
                f"Celery has no setting {name}: if it is meant for Celery, it is ignored.",
                "Take it out; one of your own needs a name that doesn't begin like Celery's.",
            )


def _unknown(app: Celery) -> Iterator[tuple[str, str, float]]:
    """Yield each name that is not read, the one that was meant, empty if there is none alike, and how alike it is."""
    names = readable(app)
    prefix = settings_of(app).prefix or ""
    known = known_keys()
    for source, _is_code in given(app):
        for name in sorted(filter(_is_text, source)):
            rest = _after_prefix(name, prefix)
            if name in names or rest is None or rest.upper().startswith(OF_OTHERS):
                continue
            if not prefix and rest.lower() in known:
                continue  # E012
            meant, likeness = _meant(name, rest, prefix)
            # A name in lower case may be a variable of the module, or what another library looks for.
            if likeness >= SURE or (name.startswith(prefix) if prefix else not name.islower()):
                yield name, meant, likeness


def _is_text(name: Any) -> bool:
    return isinstance(name, str)


def _after_prefix(name: str, prefix: str) -> str | None:
    """Return what makes a name Celery's, without what it begins with; None for a name that isn't Celery's."""
    if prefix and name.startswith(prefix):
        return name.removeprefix(prefix)
    if name.islower():
        return name
    for old in OLD_PREFIXES if not prefix else UNMISTAKABLE:
        if name.startswith(old):
            return name.removeprefix(old)
    return None


def _meant(name: str, rest: str, prefix: str) -> tuple[str, float]:
    """Return the setting that ``name`` is most like, as this app reads it, and how alike: 1 for an old name."""
    if name in OLD_NAMES:
        return _spelled(OLD_NAMES[name], name, prefix), 1.0
    alike = [] if prefix or name.islower() else difflib.get_close_matches(name, OLD_NAMES, n=1, cutoff=SURE)
    if alike:
        return alike[0], SURE
    wanted, keys = rest.lower(), sorted(known_keys())
    if close := difflib.get_close_matches(wanted, keys, n=1, cutoff=LIKELY):
        likeness = difflib.SequenceMatcher(None, wanted, close[0]).ratio()
        return _spelled(close[0], name, prefix), LIKELY if _may_be_own(wanted, close[0]) else likeness
    # CELERY_CONCURRENCY for CELERY_WORKER_CONCURRENCY: the part in front was forgotten. One word ends many a name.
    is_telling = "_" in wanted or wanted in TELLING
    ends = [key for key in keys if is_telling and key.endswith(f"_{wanted}")]
    return (_spelled(ends[0], name, prefix), LIKELY) if len(ends) == 1 else ("", 0.0)


def _may_be_own(wanted: str, key: str) -> bool:
    """Say whether somebody may have named one of his own so: CELERY_TASK_QUEUE, CELERY_BEAT_SCHEDULE_FILE."""
    return wanted != key and (wanted.startswith(key) or key.startswith(wanted))


def _spelled(key: str, name: str, prefix: str) -> str:
    """Return ``key`` in the form of ``name``."""
    if name.islower() and not (prefix and name.startswith(prefix)):
        return key
    if prefix:
        return prefix + (key.upper() if prefix.isupper() else key)
    return next((old for old, new in OLD_NAMES.items() if new == key), key)
