"""Sentry's integrations change Celery and Django for good, so their tests have a process of their own."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def test_sentry_is_told_what_told_py_says(request):
    paths = " ".join(str(path.relative_to(HERE.parent.parent)) for path in request.config.getini("pythonpath"))
    pytest_itself = Path(sys.executable).with_name("pytest")
    command = [pytest_itself, "-o", f"pythonpath={paths}", "-q", "-p", "no:cacheprovider", HERE / "sentry" / "told.py"]

    done = subprocess.run(command, cwd=HERE.parent.parent, capture_output=True, text=True, check=False, timeout=600)

    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
