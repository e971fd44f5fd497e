"""One side of requeue.py: puts back the rows of a range of keys for each line that it reads, and says how long it took.

The loop is what people write: fetch the rows, ``apply_async`` with the same id, save the row. It has a table of its
own, without django-taskkit in its process.
"""

import json
import os
import resource
import sys
import time

from requeue_app import app, receipt

if os.environ["BENCH_SIDE"] == "loop":
    from django.db import models

    class Failed(models.Model):
        """The same table, as far as the loop needs it."""

        task_id = models.CharField(max_length=255)
        task_name = models.CharField(max_length=255)
        queue = models.CharField(max_length=255)
        status = models.CharField(max_length=16)
        requeue_count = models.PositiveIntegerField()
        body = models.BinaryField()
        headers = models.TextField()
        exception_message = models.TextField()
        traceback = models.TextField()

        class Meta:
            app_label = "auth"
            managed = False
            db_table = "django_taskkit_deadletter"

        def __str__(self) -> str:
            return self.task_id


def loop(first: int, last: int) -> int:
    count = 0
    for row in Failed.objects.filter(pk__range=(first, last), status="dead").iterator():
        args, kwargs, _embed = json.loads(bytes(row.body))
        receipt.apply_async(args, kwargs, task_id=row.task_id, queue=row.queue)
        row.status = "requeued"
        row.requeue_count += 1
        row.save(update_fields=["status", "requeue_count"])
        count += 1
    return count


def taskkit(first: int, last: int) -> int:
    from django_taskkit.dlq import requeue
    from django_taskkit.models import DeadLetter

    report = requeue(DeadLetter.objects.filter(pk__range=(first, last), status="dead"), by="bench", app=app)
    return report.requeued


def main() -> None:
    put_back = {"loop": loop, "taskkit": taskkit}[os.environ["BENCH_SIDE"]]
    for line in sys.stdin:
        first, last = map(int, line.split())
        started, cpu = time.perf_counter(), time.process_time()
        count = put_back(first, last)
        took, used = time.perf_counter() - started, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
        print(json.dumps({"count": count, "seconds": took, "cpu": used, "peak": peak}), flush=True)


if __name__ == "__main__":
    main()
