"""The examples of docs/testing.md, run as they stand in a project of a user's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.template

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "testing.md"

PROJECT = {
    "manage.py": """
        import os, sys
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
        from django.core.management import execute_from_command_line
        execute_from_command_line(sys.argv)
    """,
    "project/__init__.py": "from project.celery import app as celery_app",
    "project/celery.py": """
        import os
        from celery import Celery
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
        app = Celery("project")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.autodiscover_tasks()
    """,
    "project/settings.py": """
        SECRET_KEY = "x"
        INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_taskkit", "shop"]
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
        DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
        USE_TZ = True
        CELERY_BROKER_URL = "redis://127.0.0.1:1/0"
        CELERY_RESULT_BACKEND = "redis://127.0.0.1:1/1"
    """,
    "shop/__init__.py": "",
    "pytest.ini": """
        [pytest]
        DJANGO_SETTINGS_MODULE = project.settings
        python_files = test_*.py tests.py
        addopts = --strict-markers -p no:cacheprovider
    """,
}


@pytest.fixture
def project(tmp_path):
    """A Django project with the files that docs/testing.md shows; its servers don't exist."""
    files = {**PROJECT, **dict(re.findall(r"```python\n# (\S+)\n(.*?)```", DOCS.read_text(), re.DOTALL))}
    for name, source in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        indent = re.match(r"\n( *)", source)
        path.write_text(re.sub(rf"(?m)^{indent[1]}", "", source) if indent else source)
    return tmp_path


def run(project, *command):
    ours = ("DJANGO_SETTINGS_MODULE", "PYTHONPATH", "PYTEST_ADDOPTS", "PYTEST_PLUGINS")
    done = subprocess.run(
        [sys.executable, *command],
        cwd=project,
        env={name: value for name, value in os.environ.items() if name not in ours},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def run_test(folder, source, *options):
    """Run pytest on this one file."""
    (folder / "test_it.py").write_text(source)
    return run(folder, "-m", "pytest", "-q", *options, "test_it.py")


def test_the_examples_pass_with_pytest_and_the_plugin_that_was_installed(project):
    code, output = run(project, "-m", "pytest", "-q")

    assert code == 0, output
    assert "11 passed" in output


def test_the_examples_pass_with_djangos_own_runner(project):
    code, output = run(project, "manage.py", "test")

    assert code == 0, output
    assert "Ran 3 tests" in output


def test_the_fixture_works_without_pytest_django(project):
    (project / "pytest.ini").write_text("[pytest]\naddopts = -p no:django -p no:cacheprovider --strict-markers\n")
    (project / "conftest.py").write_text(
        "import os, django\nos.environ['DJANGO_SETTINGS_MODULE'] = 'project.settings'\ndjango.setup()\n"
    )
    code, output = run_test(
        project,
        "from shop.tasks import send_receipt\n"
        "def test_plain(taskkit):\n"
        "    taskkit.fail_times(send_receipt, 2)\n"
        "    result = send_receipt.delay(1)\n"
        "    taskkit.advance_retries(times=2)\n"
        "    assert result.get() == 'receipt 1 sent'\n",
    )

    assert code == 0, output
    assert "1 passed" in output


def test_a_task_is_known_by_its_name_as_to_a_worker(project):
    code, output = run_test(
        project,
        "from project.celery import app\n"
        "def test_named(taskkit):\n"
        "    app.send_task('shop.tasks.send_receipt', (7,))\n"
        "    taskkit.run()\n"
        "    taskkit.assert_ran('shop.tasks.send_receipt', state='succeeded')\n",
    )

    assert code == 0, output


def test_a_mark_without_names_is_refused_with_how_to_write_it(project):
    code, output = run_test(project, "import pytest\n@pytest.mark.taskkit('eager')\ndef test_marked(taskkit): pass\n")

    assert code == 1
    assert "mark taskkit takes options by name, such as eager=True; not ('eager',)" in output


def test_a_project_without_django_is_left_alone(tmp_path):
    (tmp_path / "test_plain.py").write_text(
        "import sys\n"
        "def test_plain():\n"
        "    assert 'django_taskkit.testing.plugin' in sys.modules\n"
        "    assert not {'django', 'celery', 'kombu'} & set(sys.modules)\n"
    )

    # Their own plugins would import them.
    code, output = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:django", "-p", "no:celery")

    assert code == 0, output


def test_a_project_without_a_celery_app_is_told_so(project):
    (project / "project" / "__init__.py").write_text("")
    code, output = run_test(project, "def test_none(taskkit): pass\n")

    assert code == 1
    assert "No Celery app is loaded in this process" in output
    assert "from .celery import app as celery_app" in output


def test_a_project_without_time_machine_is_told_what_to_install(project):
    (project / "time_machine.py").write_text("raise ImportError\n")
    code, output = run_test(project, "def test_none(taskkit): pass\n", "-p", "no:time_machine")

    assert code == 1
    assert "pip install 'django-taskkit[testing]'" in output


def test_a_test_that_fails_says_what_did_happen(project):
    code, output = run_test(
        project,
        "import pytest\n"
        "from shop.tasks import send_receipt\n"
        "@pytest.mark.django_db\n"
        "def test_failing(taskkit):\n"
        "    taskkit.fail_times(send_receipt, 2, ConnectionRefusedError())\n"
        "    send_receipt.delay(7)\n"
        "    taskkit.advance_retries(times=None)\n"
        "    taskkit.assert_retried(send_receipt, times=3)\n",
    )

    assert code == 1
    assert "shop.tasks.send_receipt retried: expected 3 times, but it was 2 times. Retries were:" in output
    assert re.search(r"send_receipt\[[-0-9a-f]+\] after run 2, in 2 s: ConnectionRefusedError\(\)", output)
