"""The template rendered into throw-away folders, and commands run in what it makes."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import django_taskkit
from tests.template.servers import Servers

# Projects need Python 3.12, and these tests what only one environment of tox has.
collect_ignore_glob = [] if sys.version_info >= (3, 12) and find_spec("cookiecutter") else ["*"]

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "template"

#: What a developer's machine may say to Django, Celery, pytest and the libraries; nothing of it is for a project here.
_SPEAKS_TO_THE_PROJECT = ("AWS_", "CELERY_", "DJANGO_", "OTEL_", "PYTEST_", "SENTRY_", "TASKKIT_")

#: What the project writes when it is used.
_WRITTEN = {"var", "staticfiles", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"}


def unavailable(reason):
    """A missing program skips the test on a laptop and fails it in CI."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def tool(name):
    """The path of a program that checks files, from beside this Python or from PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    return found or unavailable(f"{name} is not installed")


class Baked:
    """A generated project."""

    def __init__(self, path, answers):
        self.path = path
        self.answers = answers

    @property
    def files(self):
        """What the template made; not what the project has written since."""
        found = [path for path in sorted(self.path.rglob("*")) if path.is_file()]
        return [path for path in found if not _WRITTEN.intersection(path.relative_to(self.path).parts)]

    def text(self, name):
        return (self.path / name).read_text(encoding="utf-8")

    @property
    def variables(self):
        """The names in .env.example."""
        lines = self.text(".env.example").splitlines()
        return {line.partition("=")[0] for line in lines if "=" in line and not line.startswith("#")}

    def environment(self, **more):
        """The environment for the project: nothing that this machine says to it, and the package that is tested."""
        unset = self.variables | {"DEBUG"}
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in unset and not name.startswith(_SPEAKS_TO_THE_PROJECT)
        }
        package = str(Path(django_taskkit.__file__).parents[1])
        return {**kept, "PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1", **more}

    def run(self, *arguments, **environment):
        """Run Python in the project; return what it printed."""
        return self.execute(sys.executable, *arguments, **environment)

    def execute(self, *command, **environment):
        """Run a program in the project; return what it printed."""
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def copy(self, folder):
        """The same project elsewhere, for a test that changes it."""
        shutil.copytree(self.path, folder, ignore=shutil.ignore_patterns(*_WRITTEN))
        return Baked(folder, self.answers)


def defaults():
    """What each answer is if nobody gives another."""
    questions = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    return {
        name: value[0] if isinstance(value, list) else value
        for name, value in questions.items()
        if not name.startswith("_")
    }


@pytest.fixture(scope="session")
def bake(tmp_path_factory):
    """Render the template with the given answers; what the same answers have made is made once."""
    main = pytest.importorskip("cookiecutter.main", reason="cookiecutter is not installed")
    made = {}

    def render(**answers):
        given = {**defaults(), **answers}
        key = tuple(sorted(given.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("baked")
            config = folder / "cookiecutter.yaml"  # nothing is read from or written to the home folder
            config.write_text(f"replay_dir: {folder}/replay\ncookiecutters_dir: {folder}/templates\n")
            path = main.cookiecutter(
                str(TEMPLATE),
                no_input=True,
                extra_context=answers,
                output_dir=str(folder),
                config_file=str(config),
            )
            made[key] = Baked(Path(path), given)
        return made[key]

    yield render
    for baked in made.values():
        shutil.rmtree(baked.path, ignore_errors=True)


@pytest.fixture(scope="session")
def shop(bake):
    """The project with all answers left at their defaults."""
    return bake()


@pytest.fixture(scope="session")
def odd(bake):
    """A project with answers that are legal and not what one expects."""
    return bake(
        project="x",
        project_name="O'Brien & Söhne <Tee> {50 %} #1",
        author_name="Zoë 'Zed' d'Arc <zoe@example.org>",
        timezone="America/Argentina/Buenos_Aires",
    )


@pytest.fixture(scope="session")
def servers():
    """``servers.environment(baked)``: a database and a broker of its own for a project; all is gone afterwards."""
    with Servers() as opened:
        yield opened


@pytest.fixture
def production():
    """What production asks for, whatever the answers."""
    return {
        "DJANGO_SETTINGS_MODULE": "config.settings.production",
        "ALLOWED_HOSTS": "shop.example",
        "EMAIL_HOST": "mail.example",
    }
