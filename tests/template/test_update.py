"""A project takes over what the template has learnt, by cruft; what its owners changed stays, and so do secrets."""

import json
import os
import shutil
import subprocess

import pytest

from tests.template.conftest import TEMPLATE, tool

pytestmark = pytest.mark.template

ANSWERS = {"project_name": "O'Brien & Söhne <Tee>", "database": "postgresql", "ci": "gitlab"}

PROJECT = "template/{{cookiecutter.project}}"
VERSION = f"v{json.loads((TEMPLATE / 'cookiecutter.json').read_text(encoding='utf-8'))['_template_version']}"


class Folder:
    """A folder, and commands in it, in an environment where git knows nobody but the test."""

    def __init__(self, path):
        self.path = path

    def run(self, *command):
        config = self.path.parent / "cookiecutter.yaml"
        config.write_text(f"replay_dir: {config.parent}/replay\ncookiecutters_dir: {config.parent}/templates\n")
        who = {
            f"GIT_{role}_{what}": "test@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(
            command,
            cwd=self.path,
            env={**kept, **who, "GIT_CONFIG_GLOBAL": os.devnull, "COOKIECUTTER_CONFIG": str(config), "TERM": "dumb"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def git(self, *arguments):
        return self.run(tool("git"), *arguments)

    def cruft(self, *arguments):
        return self.run(tool("cruft"), *arguments)

    def differences(self):
        """The lines of `cruft diff` that name a file; the rest is what the template's hook says."""
        return [line for line in self.cruft("diff").splitlines() if line.startswith("diff ")]

    def commit(self):
        if not (self.path / ".git").exists():
            self.git("init", "--quiet", "--initial-branch=main")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=so far")

    def text(self, name):
        return (self.path / name).read_text(encoding="utf-8")

    def change(self, name, old, new):
        assert self.text(name).count(old) == 1, f"{old!r} in {name}"
        (self.path / name).write_text(self.text(name).replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A repository with the template in it: first as this checkout has it, tagged with its version, and then newer."""
    repository = tmp_path_factory.mktemp("template") / "django-taskkit"
    shutil.copytree(TEMPLATE, repository / "template", ignore=shutil.ignore_patterns("__pycache__", "var"))
    folder = Folder(repository)
    folder.commit()
    folder.git("tag", VERSION)
    folder.change(f"{PROJECT}/config/settings/tasks.py", "# --- The broker ---", "# --- What carries the messages ---")
    folder.change(f"{PROJECT}/gunicorn.conf.py", "graceful_timeout = 30", "graceful_timeout = 31")
    folder.change("template/cookiecutter.json", '"_template_version": "', '"_template_version": "9.')
    (folder.path / PROJECT / "docs" / "news.md").write_text("For {{ cookiecutter.project_name }}.\n")
    folder.commit()
    return folder


@pytest.fixture(scope="module")
def as_created(template, tmp_path_factory):
    """A project made by `cruft create` of the older version, committed."""
    home = Folder(tmp_path_factory.mktemp("home") / "here")
    home.path.mkdir()
    home.cruft(
        *("create", str(template.path), "--directory", "template", "--checkout", VERSION, "--no-input"),
        *("--extra-context", json.dumps(ANSWERS)),
    )
    project = Folder(home.path / "shop")
    project.commit()
    return project


@pytest.fixture
def made(as_created, tmp_path):
    """That project, for a test of its own."""
    shutil.copytree(as_created.path, tmp_path / "shop", symlinks=True)
    return Folder(tmp_path / "shop")


def update(project, *arguments):
    return project.cruft("update", "--skip-apply-ask", "--checkout", "main", *arguments)


def test_what_is_new_comes_and_what_is_ours_stays(made):
    secrets = made.text(".env")
    made.change("gunicorn.conf.py", 'bind = "127.0.0.1:8000"', 'bind = "127.0.0.1:8001"')
    (made.path / "orders" / "ours.py").write_text('"""Ours."""\n')
    made.commit()

    update(made)

    assert 'bind = "127.0.0.1:8001"' in made.text("gunicorn.conf.py")
    assert "graceful_timeout = 31" in made.text("gunicorn.conf.py")
    assert "What carries the messages" in made.text("config/settings/tasks.py")
    assert made.text("docs/news.md") == f"For {ANSWERS['project_name']}.\n"
    assert (made.path / "orders" / "ours.py").is_file()
    assert 'version = "9.' in made.text("pyproject.toml")
    assert made.text(".env") == secrets
    assert not (made.path / ".github").exists()
    assert "up to date" in made.cruft("check")


def test_secrets_and_what_is_pruned_are_no_difference(made):
    assert made.differences() == []

    update(made)

    changed = {line[3:] for line in made.git("status", "--porcelain").splitlines()}
    assert changed == {
        *(".cruft.json", "pyproject.toml", "docs/news.md", "docs/updating.md"),
        *("config/settings/tasks.py", "gunicorn.conf.py"),
    }


def test_what_both_have_changed_is_shown_as_a_conflict_and_nothing_is_overwritten(made):
    made.change("gunicorn.conf.py", "graceful_timeout = 30", "graceful_timeout = 60")
    made.commit()

    said = update(made)

    assert "conflict" in said
    text = made.text("gunicorn.conf.py")
    assert "graceful_timeout = 60" in text
    assert "<<<<<<<" in text
    assert "graceful_timeout = 31" in text
    assert "What carries the messages" in made.text("config/settings/tasks.py")


def test_outside_of_git_what_does_not_fit_is_left_in_a_file_beside(made):
    made.change("gunicorn.conf.py", "graceful_timeout = 30", "graceful_timeout = 60")
    shutil.rmtree(made.path / ".git")

    update(made)

    assert "graceful_timeout = 60" in made.text("gunicorn.conf.py")
    assert "graceful_timeout = 31" in made.text("gunicorn.conf.py.rej")
    assert "What carries the messages" in made.text("config/settings/tasks.py")


def test_what_was_deleted_stays_away(made):
    (made.path / "gunicorn.conf.py").unlink()
    made.commit()

    update(made)

    assert not (made.path / "gunicorn.conf.py").exists()
    assert "What carries the messages" in made.text("config/settings/tasks.py")


def test_a_project_that_was_made_without_cruft_is_linked_by_the_command_of_its_own_document(bake, template, tmp_path):
    project = Folder(bake(**ANSWERS).copy(tmp_path / "linked" / "shop").path)
    shutil.copyfile(bake(**ANSWERS).path / ".env", project.path / ".env")
    project.commit()
    secrets = project.text(".env")
    [command] = [
        part.partition("\n$")[0]
        for part in project.text("docs/updating.md").split("\n$ ")
        if part.startswith("cruft link")
    ]

    project.run(
        "sh", "-ec", command.replace("gh:OWNER/django-taskkit", str(template.path)).replace("cruft", tool("cruft"), 1)
    )
    project.commit()
    assert project.differences() == []
    update(project)

    assert "graceful_timeout = 31" in project.text("gunicorn.conf.py")
    assert project.text(".env") == secrets


def test_another_answer_is_an_update_too(made):
    update(made, "--variables-to-update", '{"broker": "redis", "ci": "github"}')

    assert "django_taskkit.transports.redis" in made.text("config/settings/tasks.py")
    assert (made.path / ".github" / "workflows" / "ci.yml").is_file()
    assert not (made.path / ".gitlab-ci.yml").exists()
