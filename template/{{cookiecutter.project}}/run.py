"""Run web, a worker for each lane, beat and relay in one terminal, until Ctrl-C or until one of them ends.

Only the main process of each is ever signalled, never a group: a worker that gets TERM lets its tasks finish
(a warm stop), and pool processes that got it too would die in the middle of them. Each runs in a session of
its own, so that Ctrl-C in the terminal reaches this file alone. A second Ctrl-C gives running tasks 10 more
seconds, and what is not done goes back to the broker.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import django

from config.environment import Environment

#: Seconds for a cold stop of the workers; longer than CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT.
COLD_GRACE = 20

_output = threading.Lock()


def say(name, text):
    with _output, suppress(BrokenPipeError):
        print(f"{name:>16} | {text}", flush=True)


class Part:
    """One of the processes."""

    def __init__(self, name, *arguments):
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.reader = threading.Thread(target=self._repeat_output, daemon=True)
        self.reader.start()

    def _repeat_output(self):
        for line in self.process.stdout:
            say(self.name, line.rstrip("\n"))

    def ended(self):
        return self.process.poll() is not None

    def signal(self, number):
        if not self.ended():
            self.process.send_signal(number)


def workers():
    """Return a process for each lane of the settings; `manage.py taskkit workers` writes the same command lines."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from django_taskkit.routing.processes import worker_process
    from django_taskkit.routing.workers import worker_plans

    from config.celery import app

    app.loader.import_default_modules()  # tasks with a time limit of their own make a stop longer
    return [worker_process(plan, "config") for plan in worker_plans(app)]


class Runner:
    """Starts the parts, waits for the end, stops them."""

    def __init__(self, address):
        self.stops = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_stop)
        planned = workers()
        #: Seconds for a warm stop, in which every task comes to its end.
        self.grace = max(process.stop_grace for process in planned)
        self.web = Part("web", "manage.py", "runserver", "--noreload", address)
        self.workers = [Part(process.name, *process.arguments) for process in planned]
        self.beat = Part("beat", "-m", "celery", "-A", "config", "beat", "--loglevel", "INFO", "--pidfile=")
        health = str(Path(Environment(Path(".env")).text("VAR_DIR", "var"), "relay.json"))
        self.relay = Part("relay", "manage.py", "taskkit", "relay", "--health-file", health)
        self.parts = [self.web, *self.workers, self.beat, self.relay]

    def _on_stop(self, number, frame):
        self.stops += 1

    def run(self):
        while not self.stops:
            for part in self.parts:
                if part.ended():
                    say("run", f"{part.name} ended with code {part.process.returncode}: stopping the others")
                    self.stop()
                    return 1
            time.sleep(0.1)
        say("run", "stopping; tasks that run are let finish (Ctrl-C once more: 10 seconds at most)")
        self.stop()
        return 0

    def stop(self):
        asked = self.stops
        for part in (self.beat, self.relay, self.web, *self.workers):  # first what sends tasks, then what runs them
            part.signal(signal.SIGTERM)
        if not self._wait(self.grace, until=lambda: self.stops > asked):
            for worker in self.workers:
                worker.signal(signal.SIGQUIT)
            self._wait(COLD_GRACE)
        for part in self.parts:
            if not part.ended():
                say("run", f"{part.name} does not stop: killed; its messages go to the next worker")
                part.process.kill()
            part.process.wait()
            part.reader.join(timeout=1)
        say("run", "all stopped")

    def _wait(self, seconds, until=lambda: False):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not until():
            if all(part.ended() for part in self.parts):
                return True
            time.sleep(0.05)
        return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    sys.exit(Runner(f"{options.host}:{options.port}").run())
