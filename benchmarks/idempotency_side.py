"""One side of idempotency.py: goes through the scenarios with real workers, and says as JSON what came of each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

from idempotency_app import FOLDER, SIDE, app, charge, deadly, flaky, nothing, transfer

HERE = Path(__file__).resolve().parent
DUPLICATES = 50
WARM = 50


@contextlib.contextmanager
def worker(*arguments):
    """A real worker in a process group of its own."""
    log_path = FOLDER / f"worker-{uuid.uuid4().hex[:6]}.log"
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "idempotency_app", "worker", "--loglevel=INFO", *arguments],
            cwd=HERE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until(lambda: " ready." in log_path.read_text() or process.poll() is not None, 60)
        if process.poll() is not None:
            raise SystemExit(f"the worker of {SIDE} ended:\n{log_path.read_text()[-3000:]}")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@contextlib.contextmanager
def relay():
    """The relay that django-taskkit's waiting messages need."""
    if SIDE != "django-taskkit":
        yield
        return
    script = "import idempotency_app; from django.core.management import call_command; call_command('taskkit', 'relay')"
    with open(FOLDER / "relay.log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-c", script], cwd=HERE, stdout=log, stderr=log)
    try:
        until(lambda: heartbeats(), 30)
        yield
    finally:
        process.terminate()
        process.wait(30)


def heartbeats():
    from django_taskkit.models import RelayHeartbeat

    return RelayHeartbeat.objects.exists()


def until(condition, timeout):
    """Wait; returns the seconds that it took, None if it didn't happen."""
    started = time.monotonic()
    while time.monotonic() - started < timeout:
        if condition():
            return time.monotonic() - started
        time.sleep(0.05)
    return None


def runs(order_id):
    path = FOLDER / f"runs-{order_id}"
    return path.read_text().splitlines() if path.exists() else []


def send(task, *args, **kwargs):
    """Return the result, or the error that the caller gets."""
    try:
        return task.delay(*args, **kwargs)
    except Exception as exc:
        return exc


def all_at_once(call, count):
    """Call it from ``count`` threads at the same time."""
    barrier, results = threading.Barrier(count), []

    def thread():
        barrier.wait()
        results.append(call())

    threads = [threading.Thread(target=thread) for _ in range(count)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return results


def settled(order_id, timeout=60, quiet=6):
    """How many bodies have run when none has begun for ``quiet`` seconds."""
    count, since = 0, time.monotonic()
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and time.monotonic() - since < quiet:
        if len(runs(order_id)) != count:
            count, since = len(runs(order_id)), time.monotonic()
        time.sleep(0.1)
    return len(runs(order_id))


def what_callers_get(results):
    kinds = {}
    for result in results:
        if isinstance(result, Exception):
            kind = type(result).__name__
        else:
            kind = "SUCCESS" if until(result.ready, 30) is not None and result.successful() else result.state
        kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


def duplicates():
    results = all_at_once(lambda: send(charge, 1), DUPLICATES)
    found = {"bodies": settled(1), "callers": what_callers_get(results)}
    send(charge, 1)
    found["bodies_after_one_more"] = settled(1)
    all_at_once(lambda: app.send_task("bench.charge", (2,)), DUPLICATES)
    found["bodies_by_name"] = settled(2)
    return found


def spelling():
    results = [
        send(transfer, 3),
        send(transfer, order_id=3),
        send(transfer, 3, "EUR"),
        send(transfer, currency="EUR", order_id=3),
    ]
    errors = sorted({repr(result) for result in results if isinstance(result, Exception)})
    return {"bodies": settled(3), "errors": errors}


def retry():
    result = send(flaky, 4)
    until(lambda: runs(4), 30)
    time.sleep(1)  # its retry comes after 4 s
    duplicate = send(flaky, 4)
    took = until(result.ready, 30)
    bodies = settled(4)
    first = [line for line in runs(4) if line.split()[0] == result.id]
    return {
        "runs_of_the_first": len(first),
        "state": result.state,
        "swallowed": took is None,
        "bodies": bodies,
        "duplicate": type(duplicate).__name__ if isinstance(duplicate, Exception) else duplicate.state,
    }


def killed(order_id, deadline, kill):
    """Seconds from the death of the holder until the same key runs again; None: not before the deadline."""
    send(deadly, order_id)
    if until(lambda: runs(order_id), 30) is None:
        raise SystemExit(f"{SIDE}: the task did not start")
    died = time.time()
    kill()
    waiting, begun = None, time.monotonic()
    while time.monotonic() - begun < deadline and len(runs(order_id)) < 2:
        # Whoever asks again when it was refused; what was accepted under an id of its own is on its way.
        if SIDE != "django-taskkit" or waiting is None:
            waiting = send(deadly, order_id)
        time.sleep(1)
    again = runs(order_id)[1:]
    return float(again[0].split()[1]) - died if again else None


def one_process_killed(deadline):
    with worker("--pool=prefork", "--concurrency=2", "-n", "a@%h"):
        return killed(5, deadline, (FOLDER / "die-5").touch)


def whole_worker_killed(deadline):
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(worker("--pool=prefork", "--concurrency=1", "-n", "b@%h"))

        def kill():
            os.killpg(first.pid, signal.SIGKILL)
            (FOLDER / "over-6").touch()
            stack.enter_context(worker("--pool=prefork", "--concurrency=1", "-n", "c@%h"))

        return killed(6, deadline, kill)


def cpu_of(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def overhead(count, turn):
    """Seconds per task: to send it (wall and CPU), and of the worker's CPU to run it."""
    first = 1_000_000 * (turn + 1)
    # The first ones of a process connect and import.
    results = [nothing.delay(number) for number in range(first, first + WARM)]
    wall, cpu = time.perf_counter(), time.process_time()
    results += [nothing.delay(number) for number in range(first + WARM, first + WARM + count)]
    sent = {"send": (time.perf_counter() - wall) / count, "send_cpu": (time.process_time() - cpu) / count}
    with worker("--pool=solo", "-n", f"d{turn}@%h", "--without-gossip", "--without-mingle") as process:
        results[WARM].get(timeout=120, interval=0.1)
        left = sum(not result.ready() for result in results)
        started = cpu_of(process.pid)
        for result in results:
            result.get(timeout=120, interval=0.1)
        sent["run_cpu"] = (cpu_of(process.pid) - started) / left
    return sent


def main():
    if SIDE == "django-taskkit":
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
    scenario, *numbers = sys.argv[1:]
    if scenario == "overhead":
        found = overhead(*map(int, numbers))
    elif scenario == "behaviour":
        with relay(), worker("--pool=threads", "--concurrency=8", "-n", "a@%h"):
            found = {"duplicates": duplicates(), "spelling": spelling(), "retry": retry()}
    else:
        with relay():
            found = {
                "one_process_killed": one_process_killed(int(numbers[0])),
                "whole_worker_killed": whole_worker_killed(int(numbers[0])),
            }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
