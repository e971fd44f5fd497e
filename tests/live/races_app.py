"""What test_races.py runs in processes of their own: operators who requeue, some of whom die of it, and a worker's app.

``python races_app.py HOW [POINT]`` says "ready", waits for a line, requeues, and says what came of it as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "letters_settings")

import django
import harness
from celery import Celery, shared_task

app = Celery("races")
app.conf.update(harness.celery_settings())


@shared_task(name="races.run")
def run(folder: str, number: int) -> str:
    """Notes that it ran, and fails until the file ``cured`` is there."""
    runs = os.open(Path(folder, "runs"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(runs, f"{number}\n".encode())
    os.close(runs)
    if not Path(folder, "cured").exists():
        raise LookupError("not cured")
    return "done"


def die() -> None:
    """As by the OOM killer: nothing is tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(point: str) -> None:
    """Be killed at ``point`` of the second chunk."""
    from django_taskkit.dlq import transitions
    from django_taskkit.signals import task_requeued

    calls = []

    class Deadly(transitions.BulkPublisher):
        def publish_many(self, *args, **options):
            calls.append(1)
            if len(calls) == 2 and point == "before the publish":
                die()
            outcomes = super().publish_many(*args, **options)
            if len(calls) == 2 and point == "before the commit":
                die()
            return outcomes

    def on_requeued(sender, event, **kwargs):
        if len(calls) == 2 and point == "after the commit":
            die()

    transitions.BulkPublisher = Deadly
    task_requeued.connect(on_requeued, weak=False)


def main(how: str, point: str = "") -> None:
    django.setup()
    from django_taskkit.dlq import requeue, transitions
    from django_taskkit.models import DeadLetter

    transitions.CHUNK = 50
    if point:
        die_at(point)
    DeadLetter.objects.count()
    print("ready", flush=True)
    folder = sys.stdin.readline().strip()
    reports = []
    if how == "all at once":
        reports.append(requeue(DeadLetter.objects.all(), by="operator"))
    elif how == "one by one":
        reports += [requeue(row, by="operator") for row in DeadLetter.objects.order_by("pk")]
    elif how == "again and again":
        while not Path(folder, "enough").exists():
            reports.append(requeue(DeadLetter.objects.filter(status="dead"), by="operator"))
    reasons = sorted({refusal.reason for report in reports for refusal in report.refused})
    print(
        json.dumps(
            {
                "requeued": sum(report.requeued for report in reports),
                "refused": sum(len(report.refused) for report in reports),
                "not_tried": sum(report.not_tried for report in reports),
                "reasons": reasons,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
