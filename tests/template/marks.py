"""A task that takes its time and leaves marks, for projects whose workers are stopped in the middle of it."""

_TASK = """

@shared_task(base=BaseTaskWithRetry)
def slow(name: str, seconds: float) -> None:
    import time

    def mark(what: str) -> None:
        with (settings.VAR_DIR / "marks").open("a") as file:
            file.write(f"{name} {what}\\n")

    mark("began")
    time.sleep(seconds)
    mark("ended")
"""

SEND = """
import django, sys
django.setup()
from orders.tasks import slow
for name in sys.argv[2:]:
    slow.delay(name, float(sys.argv[1]))
"""


def add_slow_task(project):
    """Give the project `orders.tasks.slow`, which goes to the lane default."""
    tasks = project.path / "orders" / "tasks.py"
    tasks.write_text(tasks.read_text() + _TASK)


class Marks:
    """What the tasks have left so far."""

    def __init__(self, file):
        self.file = file

    def names(self, what):
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [line.split()[0] for line in lines if line.endswith(what)]
