"""The worker of test_redrive.py, and ``manage.py`` of its project when it is run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "letters_settings")

import harness
from celery import Celery, shared_task

app = Celery("redrive")
app.conf.update(harness.celery_settings())


@shared_task(name="redrive.pay", ignore_result=True)
def pay(folder: str, number: int) -> None:
    """Fails until the file ``cured`` is there, and then writes a line for each run."""
    if not Path(folder, "cured").exists():
        raise LookupError(f"no {number}")
    with open(Path(folder, "runs"), "a") as runs:
        runs.write(f"{number}\n")


if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
