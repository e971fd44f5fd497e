"""The template rendered into a throw-away folder, and commands run in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import django_taskkit

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "template"


class Baked:
    """A generated project."""

    def __init__(self, path):
        self.path = path

    @property
    def files(self):
        """What the template made; not what the project has written since."""
        found = [path for path in sorted(self.path.rglob("*")) if path.is_file()]
        return [path for path in found if path.relative_to(self.path).parts[0] != "var"]

    def environment(self, **more):
        """The environment for the project: no settings of the tests, and the package that is tested."""
        unset = (
            "DJANGO_SETTINGS_MODULE",
            "PYTEST_ADDOPTS",
            "PYTEST_PLUGINS",
            "DEBUG",
            "BROKER_URL",
            "CACHE_URL",
            "VAR_DIR",
            "SECRET_KEY",
        )
        kept = {name: value for name, value in os.environ.items() if name not in unset}
        package = str(Path(django_taskkit.__file__).parents[1])
        return {**kept, "PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1", **more}

    def run(self, *arguments, **environment):
        """Run Python in the project; return what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.path,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="session")
def bake(tmp_path_factory):
    """Render the template with the given answers."""
    main = pytest.importorskip("cookiecutter.main", reason="cookiecutter is not installed")

    def render(**answers):
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
        return Baked(Path(path))

    return render


@pytest.fixture(scope="session")
def shop(bake):
    """The project with all answers left at their defaults."""
    baked = bake()
    yield baked
    shutil.rmtree(baked.path, ignore_errors=True)


@pytest.fixture(scope="session")
def odd(bake):
    """A project with answers that are legal and not what one expects."""
    return bake(
        project="x",
        project_name="O'Brien & Söhne <Tee> {50 %} #1",
        author_name="Zoë 'Zed' d'Arc <zoe@example.org>",
        timezone="America/Argentina/Buenos_Aires",
    )
