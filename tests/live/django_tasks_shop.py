"""Tasks of Django's, of the project of test_django_tasks.py."""

from __future__ import annotations

import os
import time
from pathlib import Path

from django.tasks import task


@task
def note(path: str, line: str) -> str:
    with open(path, "a") as file:
        file.write(f"{line}\n")
    return line


@task(takes_context=True)
async def tell(context, name: str) -> list[object]:
    return [name, context.attempt, context.task_result.id]


@task
def fail_while(path: str) -> str:
    if Path(path).exists():
        raise ValueError("the file is there")
    return "done"


@task
def end_process(path: str) -> None:
    """Be killed each time."""
    with open(path, "a") as file:
        file.write("killed\n")
    os.kill(os.getpid(), 9)
    time.sleep(60)
