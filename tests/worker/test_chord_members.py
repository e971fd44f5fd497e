"""What projects without Redis have of it: nothing. The rest is in tests/live/test_chord_killed.py."""

import subprocess
import sys

import pytest

WITHOUT_REDIS = """
import sys
sys.modules["redis"] = None
import django
django.setup()
from django_taskkit.worker import chord_members
assert chord_members.claim_left(object(), None) == 0
"""

UNUSED = """
import sys
import django
django.setup()
assert "redis" not in sys.modules
"""


@pytest.mark.parametrize("code", [WITHOUT_REDIS, UNUSED], ids=["not there", "not used"])
def test_the_app_is_installed_without_the_package_redis(monkeypatch, code):
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.settings")

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
