"""Prometheus' own tool, which knows what Prometheus takes."""

import os
import shutil
import subprocess

import pytest


def promtool(*arguments, text=None):
    """Its exit code and all that it says."""
    if not shutil.which("promtool"):
        if os.environ.get("CI"):
            raise AssertionError("promtool is not installed; it comes with Prometheus")
        pytest.skip("promtool is not installed; it comes with Prometheus")
    done = subprocess.run(["promtool", *map(str, arguments)], input=text, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr
