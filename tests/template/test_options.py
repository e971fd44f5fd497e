"""Every value of every option, and all pairs of two: what comes out is whole, tidy, and what Django wants.

What needs minutes (types, the project's own tests on its own database) is done for the first projects, and for all
of them with the marker `boot`.
"""

import ast
import json
import re
import subprocess

import pytest
import tomllib
import yaml

from tests.template.conftest import TEMPLATE, tool
from tests.template.pairs import all_pairs, partly

pytestmark = pytest.mark.template

QUESTIONS = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
OPTIONS = {name: values for name, values in QUESTIONS.items() if isinstance(values, list) and not name.startswith("_")}


def excluded():
    """The table of the hook: answers that exclude each other, and why."""
    hook = ast.parse((TEMPLATE / "hooks" / "pre_gen_project.py").read_text(encoding="utf-8"))
    [table] = [
        statement.value
        for statement in hook.body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "IMPOSSIBLE"
    ]
    return ast.literal_eval(table)


IMPOSSIBLE = excluded()
VARIANTS = all_pairs(OPTIONS, [answers for answers, _ in IMPOSSIBLE])

#: These go all the way in CI too.
FIRST = 4


def named(answers):
    return "-".join(value for option, value in answers.items() if option not in ("ci", "licence") and value != "none")


every_variant = pytest.mark.parametrize("answers", VARIANTS, ids=named)
some_variants = pytest.mark.parametrize("answers", partly(VARIANTS, FIRST, named))


def test_all_pairs_are_there_and_no_impossible_one():
    reasons = [answers for answers, _ in IMPOSSIBLE]
    for first, second in ((a, b) for a in OPTIONS for b in OPTIONS if a < b):
        for one in OPTIONS[first]:
            for other in OPTIONS[second]:
                pair = {first: one, second: other}
                rows = [row for row in VARIANTS if pair.items() <= row.items()]
                assert bool(rows) != (pair in reasons), pair


@pytest.mark.parametrize("option", ["database", "results", "scheduler", "flower", "observability", "deployment"])
def test_the_first_have_every_value_of_what_matters_most(option):
    assert {row[option] for row in VARIANTS[:FIRST]} == set(OPTIONS[option])


@pytest.mark.parametrize(
    ("answers", "reason"), IMPOSSIBLE, ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else ""
)
def test_an_impossible_pair_is_refused_with_the_reason(bake, capfd, answers, reason):
    with pytest.raises(Exception, match="Hook script failed"):
        bake(**{"database": "postgresql", **answers})  # or SQLite would be the first reason on Kubernetes

    said = capfd.readouterr().err
    assert f"{' with '.join(f'{name}={value}' for name, value in answers.items())} is not possible: {reason}." in said


# --- Files ---------------------------------------------------------------------------------------------------

#: Where braces belong to Django, Prometheus or Grafana.
OTHERS_BRACES = (".html", "ops/alerts.yml", "ops/dashboard.json")


@every_variant
def test_nothing_is_left_of_the_template(bake, answers):
    baked = bake(**answers)

    for path in baked.files:
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(baked.path).as_posix()
        assert "cookiecutter" not in text or name == "docs/updating.md", name
        if not name.endswith(OTHERS_BRACES):
            ours = re.sub(r"\$\{\{.*?\}\}|\$\{#", "", text)  # GitHub's expressions, and the shell's lengths
            assert not re.search(r"\{\{|\{%|\{#|%\}", ours), name


@every_variant
def test_every_file_has_something_to_say_and_ends_with_one_line_end(bake, answers):
    baked = bake(**answers)

    for path in baked.files:
        text = path.read_bytes().decode()
        name = path.relative_to(baked.path)
        if path.name == "__init__.py" and not text:
            continue
        assert text.strip(), f"{name} is empty"
        assert text.endswith("\n"), f"{name} ends without a line end"
        assert not text.endswith("\n\n"), f"{name} ends with empty lines"
        assert not text.startswith("\n"), f"{name} begins with an empty line"
        assert "\r" not in text, f"{name} has line ends of Windows"
        spaced = [number for number, line in enumerate(text.split("\n"), 1) if line != line.rstrip()]
        assert not spaced, f"{name} has spaces at the ends of lines {spaced}"
        assert path.name in ("Makefile", "Caddyfile") or "\t" not in text, f"{name} has tabs"


@every_variant
def test_every_file_can_be_read_by_what_reads_it(bake, answers):
    baked = bake(**answers)
    readers = {
        ".py": lambda text: compile(text, "", "exec"),
        ".toml": tomllib.loads,
        ".json": json.loads,
        ".yml": lambda text: list(yaml.safe_load_all(text)),
        ".yaml": lambda text: list(yaml.safe_load_all(text)),
    }

    read = set()
    for path in baked.files:
        if reader := readers.get(path.suffix):
            reader(path.read_text(encoding="utf-8"))
            read.add(path.suffix)

    assert {".py", ".toml"} <= read


@every_variant
def test_every_link_to_a_file_leads_to_one(bake, answers):
    baked = bake(**answers)

    for path in baked.files:
        if path.suffix == ".md":
            for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", path.read_text(encoding="utf-8")):
                if "://" not in target and not target.startswith("mailto:"):
                    assert (path.parent / target).exists(), f"{path.relative_to(baked.path)} links to {target}"


def test_all_are_formatted_and_without_faults_by_their_own_rules(bake, odd):
    folders = {str(bake(**answers).path): named(answers) for answers in VARIANTS} | {str(odd.path): "odd"}
    found = {}

    for command in (("check", "--output-format=concise"), ("format", "--check")):
        done = subprocess.run(
            [tool("ruff"), *command, "--no-cache", *folders], capture_output=True, text=True, cwd=TEMPLATE, timeout=120
        )
        for line in done.stdout.splitlines() if done.returncode else ():
            folder = next((folder for folder in folders if f"{folder}/" in line), "")
            found.setdefault(line.replace(f"{folder}/", ""), folders.get(folder))
        assert "warning" not in done.stderr, done.stderr

    assert not found, "\n".join(f"{line} ({variant})" for line, variant in found.items())


# --- What Django says ----------------------------------------------------------------------------------------

ASK = """
import django
from django.core.management import call_command
django.setup()
call_command("check", deploy=True, fail_level="WARNING")
call_command("makemigrations", check=True, dry_run=True)
from django_taskkit.checks import all_messages
print([str(message) for deploy in (False, True) for message in all_messages(deploy=deploy)])
"""


@every_variant
def test_django_and_taskkit_have_nothing_to_say_about_production(bake, servers, production, answers):
    baked = bake(**answers)

    said = baked.run("-c", ASK, **servers.environment(baked), **production)

    checked, *rest = said.splitlines()
    assert checked.startswith("System check identified no issues")
    assert rest == ["No changes detected", "[]"]


# --- What takes longer ---------------------------------------------------------------------------------------


@some_variants
def test_the_types_are_right(bake, tmp_path, answers):
    baked = bake(**answers)
    pytest.importorskip("mypy_django_plugin", reason="django-stubs is not installed")

    said = baked.run("-m", "mypy", "--cache-dir", str(tmp_path))

    assert said.startswith("Success")


@pytest.mark.parametrize("answers", partly(VARIANTS, 0, named))
def test_its_own_tests_pass_on_its_own_database(bake, servers, answers):
    baked = bake(**answers)

    said = baked.run("-m", "pytest", "-p", "no:cacheprovider", "-q", **servers.environment(baked))

    assert re.search(r"\d+ passed", said), said
    assert not re.search(r"\d+ (skipped|xfailed|deselected)", said), said
