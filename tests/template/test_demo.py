"""`make demo CHECK=1`, end to end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.template

ROOT = Path(__file__).resolve().parents[2]


def test_the_story_comes_true_and_leaves_nothing_behind(tmp_path):
    unset = ("DJANGO_SETTINGS_MODULE", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if name not in unset}

    done = subprocess.run(
        [sys.executable, str(ROOT / "demo" / "run.py"), "--check"],
        env={**kept, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )

    assert done.returncode == 0, done.stdout
    assert "All came true" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in subprocess.run(["ps", "axww"], capture_output=True, text=True).stdout
