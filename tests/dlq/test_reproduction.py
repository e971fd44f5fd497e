"""Dead letters as tests: each is generated from a real one, and run by pytest in a process of its own."""

import ast
import os
import subprocess
import sys
import tokenize
from datetime import date, datetime, timezone
from decimal import Decimal
from io import StringIO
from pathlib import Path
from uuid import UUID

import pytest
from django.core.management import call_command

from django_taskkit.dlq.reproduction import ReproductionError, as_pytest
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parent.parent.parent

TASKS = """
from celery import current_app
from django_taskkit.base_tasks import BaseTaskWithRetry

def broken():
    raise LookupError("no such order")

@current_app.task(name="billing.tasks.charge", bind=True)
def charge(self, *orders, **options):
    assert type(self).__name__ == "charge", "it is bound"
    broken()

@current_app.task(name="billing.tasks.insist", bind=True, max_retries=None)
def insist(self, order):
    try:
        broken()
    except LookupError as exc:
        raise self.retry(exc=exc, countdown=0)

@current_app.task(name="billing.tasks.patient", base=BaseTaskWithRetry, max_retries=0, retry_backoff=False)
def patient(order):
    broken()

@current_app.task(name="some name: 'quoted'")
def named(order):
    broken()

@current_app.task(name="billing.tasks.datetime")
def datetime(when):
    broken()

@current_app.task(name="billing.tasks.login")
def login(user, password, *tokens, **more):
    broken()
"""

SETTINGS = """
SECRET_KEY = "x"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = ["django_taskkit"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""

CONFTEST = """
from celery import Celery
app = Celery("billing", broker="memory://", set_as_current=True)
app.set_default()
import billing.tasks
"""


class Project:
    """A package ``billing`` of tasks that fail, in a folder of its own, and imported here too."""

    def __init__(self, folder, station):
        self.folder, self.station = folder, station
        self.tasks = folder / "billing" / "tasks.py"
        self.tasks.parent.mkdir()
        (self.tasks.parent / "__init__.py").touch()
        self.tasks.write_text(TASKS)
        (folder / "conftest.py").write_text(CONFTEST)
        (folder / "project_settings.py").write_text(SETTINGS)
        (folder / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = project_settings\npythonpath = .\n")

    def letter(self, task, *args, **kwargs):
        sent = self.station.app.tasks[task].apply_async(args, kwargs)
        self.station.run_all()
        return DeadLetter.objects.get(task_id=sent.id)

    def test_of(self, letter):
        return as_pytest(letter, self.station.app)

    def run(self, *texts):
        """Return the exit code and the output of pytest."""
        for number, text in enumerate(texts):
            (self.folder / f"test_letter_{number}.py").write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
            cwd=self.folder,
            env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "project_settings"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def fix(self):
        self.tasks.write_text(TASKS.replace('raise LookupError("no such order")', "pass"))


@pytest.fixture
def project(tmp_path, station, monkeypatch):
    project = Project(tmp_path, station)
    monkeypatch.syspath_prepend(tmp_path)
    __import__("billing.tasks")
    yield project
    for name in ("billing", "billing.tasks"):
        sys.modules.pop(name, None)


@pytest.fixture
def arguments(project):
    """The values of ``args`` and ``kwargs`` in the test of a letter."""

    def arguments(letter):
        text = project.test_of(letter)
        (function,) = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
        wanted = [node for node in function.body if isinstance(node, ast.Assign)]
        imports = [node for node in ast.parse(text).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {}
        plain = [
            node for node in imports if getattr(node, "module", node.names[0].name) in ("datetime", "decimal", "uuid")
        ]
        exec(compile(ast.Module([*plain, *wanted], []), "test", "exec"), names)  # noqa: S102
        return names["args"], names["kwargs"]

    return arguments


def test_fails_as_the_task_did_and_passes_when_it_is_fixed(project):
    names = ("billing.tasks.charge", "billing.tasks.patient", "billing.tasks.datetime", "some name: 'quoted'")
    letters = [project.letter(name, 7) for name in names]
    # A worker goes on retrying this one for ever; only the test does not.
    endless = project.letter("billing.tasks.charge", 7)
    endless.task_name = "billing.tasks.insist"
    texts = [project.test_of(letter) for letter in [*letters, endless]]

    code, said = project.run(*texts)
    assert (code, said.count(" - LookupError: no such order")) == (1, 5), said
    assert "5 failed" in said

    project.fix()
    code, said = project.run(*texts)
    assert (code, "5 passed" in said) == (0, True), said


def test_says_what_died_when_and_of_what(project):
    letter = project.letter("billing.tasks.charge", 7)
    text = project.test_of(letter)

    assert ast.get_docstring(ast.parse(text)).startswith("billing.tasks.charge died of LookupError at ")
    assert letter.task_id in ast.get_docstring(ast.parse(text))
    assert letter.died_at.isoformat() in text
    assert "#   File " in text
    assert "# LookupError: 'no such order'" in text or "# LookupError: no such order" in text
    assert "from billing.tasks import charge\n" in text
    assert "def test_charge_does_not_fail(monkeypatch):" in text
    assert "@pytest.mark.django_db\n" in text


def test_arguments_are_written_as_the_values_that_they_are(project, arguments):
    args = (
        1,
        None,
        True,
        2.5,
        float("inf"),
        "tê 'x' \"y\" \\ \U0001f4a5 \n \x00 \u2028 \u202e \ud800",
        [[], {}],
        10**30,
    )
    kwargs = {
        "when": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc),
        "day": date(2026, 1, 2),
        "amount": Decimal("12.50"),
        "order": UUID("12345678123456781234567812345678"),
        "raw": b"\x00\xff",
        "not a name": {"a": ["x" * 80, "y" * 80]},
    }
    letter = project.letter("billing.tasks.charge", *args, **kwargs)

    found = arguments(letter)

    assert found == (args, kwargs)


def test_the_command_line_prints_it(project, capsys):
    letter = project.letter("billing.tasks.charge", 7)

    call_command("taskkit", "show", letter.task_id, "--pytest")

    assert capsys.readouterr().out == project.test_of(letter)


def test_imports_only_what_it_needs(project):
    text = project.test_of(project.letter("billing.tasks.charge", Decimal(1)))

    assert "from decimal import Decimal\n" in text
    assert "import datetime" not in text
    assert "uuid" not in text


def test_a_task_whose_name_the_test_needs_itself_is_imported_under_another(project):
    text = project.test_of(project.letter("billing.tasks.datetime", date(2026, 1, 2)))

    assert "from billing.tasks import datetime as task\n" in text


def test_secrets_are_asterisks_and_the_test_says_so(project, arguments):
    letter = project.letter("billing.tasks.login", "ann", "hush", "t1", "t2", api_key="k", deep={"Token": "t3", "a": 1})

    text = project.test_of(letter)

    assert not any(secret in text for secret in ("hush", "t1", "t2", "t3"))
    assert "# Secrets are asterisks here (TASKKIT['REDACT'])" in text
    assert arguments(letter) == (
        ("ann", "********", "********", "********"),
        {"api_key": "********", "deep": {"Token": "********", "a": 1}},
    )
    assert "Secrets" not in project.test_of(project.letter("billing.tasks.charge", 7))


NASTY = '"""\nimport os; os.abort()\n"""\r\x0b\x0c\x1c\x85\u2028\u2029\x00\\" \\N{BULLET} \ud800 {} %s #'


def test_no_text_gets_out_of_its_comment_or_string(project):
    letter = project.letter("billing.tasks.charge", NASTY, options=NASTY)
    # A row as it can be in memory: the database would refuse some of it.
    letter.exception_class = letter.exception_message = letter.traceback = letter.task_id = letter.task_name = NASTY

    text = project.test_of(letter)

    text.encode()
    tree = ast.parse(text)
    kinds = [type(node).__name__ for node in tree.body]
    assert kinds == ["Expr", "Import", "ImportFrom", "FunctionDef"]
    assert "os" not in {name.id for name in ast.walk(tree) if isinstance(name, ast.Name)}
    names = [token.string for token in tokenize.generate_tokens(StringIO(text).readline) if token.type == tokenize.NAME]
    assert "abort" not in names


def test_a_task_that_is_not_registered_fails_until_it_is(project):
    letter = project.letter("billing.tasks.charge", 7)
    letter.task_name = "billing.tasks.gone"

    code, said = project.run(project.test_of(letter))

    assert (code, "NotRegistered" in said) == (1, True), said


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"reason": "worker_lost"}, "may well pass"),
        ({"reason": "worker_lost"}, "kills pytest as well"),
        ({"body_ran": True}, "The task itself had ended well"),
        ({"reason": "exception"}, ""),
    ],
)
def test_says_where_a_run_in_the_same_process_shows_nothing(project, columns, says):
    letter = project.letter("billing.tasks.charge", 7)
    for name, value in columns.items():
        setattr(letter, name, value)

    text = project.test_of(letter)

    assert says in text
    assert ("may well pass" in text) == (columns.get("reason") == "worker_lost")


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"content_type": "application/x-python-serialize"}, "is not decoded for display"),
        ({"body": b"{"}, "is not a task message"),
        ({"body": b'["ab", {}, {}]'}, "no list"),
        ({"body": b"[[], 42, {}]"}, "no mapping"),
    ],
)
def test_there_is_none_of_a_message_that_cant_be_read(project, columns, why):
    letter = project.letter("billing.tasks.charge", 7)
    for name, value in columns.items():
        setattr(letter, name, value)

    with pytest.raises(ReproductionError, match=why):
        project.test_of(letter)


def test_only_the_end_of_a_long_traceback_is_in_it(project):
    letter = project.letter("billing.tasks.charge", 7)
    letter.traceback = "\n".join(f"line {number}" for number in range(1000)) + "\n" + "z" * 1000

    text = project.test_of(letter)

    assert "# ... 961 lines ..." in text
    assert "line 999" in text
    assert "line 5\n" not in text
    assert max(map(len, text.splitlines())) < 250
