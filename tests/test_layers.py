"""Imports point downward only: a module may import from its own layer and from those below."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "django_taskkit"
ROOT = Path(__file__).resolve().parent.parent

# Top first. A name stands for the module or package and for all that is in it, unless a longer name says otherwise.
LAYERS = (
    ("admin", "management", "probe", "doctor", "checks", "backends", "observability", "templatetags", "testing"),
    ("dlq", "outbox", "worker", "beat", "transports", "base_tasks", "results", "routing"),
    ("models", "backends.model", "beat.model", "dlq.models", "dlq.redrive.model", "outbox.model", "migrations"),
    ("envelope", "progress", "request_ids"),
    ("origin", "running", "stores", "arguments", "argument_kinds", "call_keys"),
    ("conf", "signals"),
    ("backoff", "exceptions", "process_identity", "observability.health.files"),
)
LEVELS = {name: number for number, names in enumerate(LAYERS) for name in names}
FREE = {"", "apps"}  # the package itself, whose names are imported when first used, and what puts it all together

# Parts of one layer that must work without these others.
ALONE = ("base_tasks", "results", "routing")
STRANGERS = {part: {*ALONE, "dlq", "worker"} - {part} for part in ALONE}


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package below `root`, named from the package on: ``dlq.models``."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def placed(module: str) -> str | None:
    """The longest name in `LAYERS` that `module` is, or is in."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in LEVELS), None)


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def import_statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """All that run, in functions too; those for the type checker alone don't."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif isinstance(child, ast.If) and is_type_checking(child.test):
            for statement in child.orelse:
                yield from import_statements(ast.Module([statement], []))
        else:
            yield from import_statements(child)


def imported(statement: ast.Import | ast.ImportFrom, module: str, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that `statement`, in `module`, imports."""
    if isinstance(statement, ast.Import):
        names = [alias.name for alias in statement.names]
    else:
        base = statement.module or ""
        if statement.level:
            here = [PACKAGE, *filter(None, module.split("."))]
            is_package = known[module].name == "__init__.py"
            up = here[: len(here) - statement.level + is_package]
            base = ".".join([*up, *filter(None, [base])])
        names = [f"{base}.{alias.name}" for alias in statement.names]
    for name in names:
        if name == f"{PACKAGE}.__version__":
            continue
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            target = name.removeprefix(PACKAGE).removeprefix(".")
            while target and target not in known:
                target = target.rpartition(".")[0]
            yield target


def violations(root: Path) -> list[str]:
    known = modules(root)
    found = []
    for module, path in known.items():
        if module in FREE:
            continue
        place = placed(module)
        if place is None:
            found.append(f"{PACKAGE}.{module} has no layer; give it one in LAYERS")
            continue
        for statement in import_statements(ast.parse(path.read_text(), str(path))):
            for target in imported(statement, module, known):
                where = f"{path.relative_to(root)}:{statement.lineno}: {PACKAGE}.{module} (layer {LEVELS[place]})"
                if target in FREE:
                    name = f"{PACKAGE}.{target}" if target else f"a name from {PACKAGE} itself"
                    found.append(f"{where} imports {name}, which is above all layers")
                    continue
                above = placed(target)
                if above is None:
                    continue  # reported where that module is looked at
                if LEVELS[above] < LEVELS[place]:
                    found.append(f"{where} imports upward: {PACKAGE}.{target} (layer {LEVELS[above]})")
                elif LEVELS[above] == LEVELS[place] and above in STRANGERS.get(place, ()):
                    found.append(f"{where} must work without {PACKAGE}.{target} (layer {LEVELS[above]})")
    return found


def test_imports_of_the_package_point_downward():
    assert violations(ROOT) == []


PLANTED = {
    "an upward import": ("envelope.py", "from django_taskkit.conf import current\nimport django_taskkit.models", 2),
    "in a function": ("conf.py", "def read():\n    from django_taskkit.dlq import recorder", 2),
    "a relative one": ("dlq/models.py", "from . import recorder", 1),
    "a relative one to the parent": ("dlq/models.py", "from ..admin import display", 1),
    "by way of the package": ("signals.py", "from django_taskkit import requeue", 1),
    "from where all is put together": ("signals.py", "from django_taskkit.apps import TaskkitConfig", 1),
    "where the type checker doesn't look": (
        "backoff.py",
        "from typing import TYPE_CHECKING\nif not TYPE_CHECKING:\n    import django_taskkit.envelope",
        3,
    ),
    "in the else of a type checker's block": (
        "backoff.py",
        "import typing\nif typing.TYPE_CHECKING:\n    pass\nelse:\n    import django_taskkit.envelope",
        5,
    ),
    "between strangers": ("results/__init__.py", "from django_taskkit.base_tasks import policy", 1),
    "a stranger of one side": ("base_tasks/policy.py", "from django_taskkit.dlq.recorder import record", 1),
}

ALLOWED = {
    "downward": ("admin/__init__.py", "from django_taskkit.dlq import recorder\nfrom django_taskkit import conf"),
    "to the models of a part": ("base_tasks/policy.py", "from django_taskkit.dlq.models import DeadLetter"),
    "the same layer": ("dlq/recorder.py", "from django_taskkit.base_tasks import policy\nfrom . import models"),
    "for the type checker": (
        "envelope.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from django_taskkit.dlq import recorder",
    ),
    "by what puts it all together": ("apps.py", "from django_taskkit import admin, checks"),
    "the version": ("envelope.py", "from django_taskkit import __version__"),
    "of other people's packages": ("backoff.py", "import django.conf\nimport django_taskkit_of_others"),
}


@pytest.fixture
def plant(tmp_path):
    """A package of empty modules, into which a test puts one file."""

    def plant(name, source):
        for module in ("__init__", "apps", "models", "envelope", "conf", "signals", "backoff", "exceptions", "checks"):
            path = tmp_path / PACKAGE / f"{module}.py"
            path.parent.mkdir(exist_ok=True)
            path.touch()
        for module in ("admin/display", "dlq/models", "dlq/recorder", "base_tasks/policy", "results/cache"):
            path = tmp_path / PACKAGE / f"{module}.py"
            path.parent.mkdir(exist_ok=True)
            path.touch()
            path.with_name("__init__.py").touch()
        (tmp_path / PACKAGE / name).write_text(source)
        return violations(tmp_path)

    return plant


@pytest.mark.parametrize(("name", "source", "line"), PLANTED.values(), ids=PLANTED)
def test_finds(plant, name, source, line):
    (violation,) = plant(name, source)

    assert violation.startswith(f"{PACKAGE}/{name}:{line}: ")


@pytest.mark.parametrize(("name", "source"), ALLOWED.values(), ids=ALLOWED)
def test_allows(plant, name, source):
    assert plant(name, source) == []


def test_the_message_names_module_line_and_both_layers(plant):
    (violation,) = plant("envelope.py", "\nfrom django_taskkit.dlq import models")

    assert violation == (
        "django_taskkit/envelope.py:2: django_taskkit.envelope (layer 3) "
        "imports upward: django_taskkit.dlq.models (layer 2)"
    )


def test_a_module_without_a_layer_is_reported(plant):
    assert plant("shelf.py", "") == ["django_taskkit.shelf has no layer; give it one in LAYERS"]
