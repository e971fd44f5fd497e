"""Run web, a worker for each lane, beat{% if cookiecutter.flower == "yes" %}, relay and Flower{% else %} and relay{% endif %} in one terminal, until Ctrl-C or until one of them ends.

When a Python file, a template or a translation of the project changes, all start anew, if the project still loads: a
typing error stops nothing, it is shown. RELOAD=0, or no watchfiles: they stay as they are.

Only the main process of each is ever signalled, never a group: a worker that gets TERM lets its tasks finish
(a warm stop), and pool processes that got it too would die in the middle of them. Each runs in a session of
its own, so that Ctrl-C in the terminal reaches this file alone. A second Ctrl-C gives running tasks 10 more
seconds, and what is not done goes back to the broker.
"""

import argparse
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType

{% if cookiecutter.flower == "yes" %}from config.environment import Environment
{% endif %}from reload import BrokenError, Plan, Watcher, ask

HERE = Path(__file__).resolve().parent

#: Seconds for a cold stop of the workers; longer than CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT.
COLD_GRACE = 20
#: Seconds that tasks have to finish when files have changed; what is not done by then is done by the new code.
RELOAD_GRACE = 10

_output = threading.Lock()


def say(name: str, text: str) -> None:
    with _output, suppress(BrokenPipeError):
        print(f"{name:>16} | {text}", flush=True)

{%- if cookiecutter.observability == "prometheus" %}


METRICS_PORTS = {
    "worker-customers": 9181,
    "worker-reports": 9182,
    "worker-geocoding": 9183,
    "worker-default": 9184,
    "beat": 9185,
    "relay": 9186,
}
{%- endif %}


class Part:
    """One of the processes."""

    def __init__(self, name: str, arguments: Iterable[str]) -> None:
        self.name = name
{%- if cookiecutter.observability == "prometheus" %}
        # Each has a port of its own on this machine, those of ops/prometheus.yml on a server.
        port = METRICS_PORTS.get(name)
        metrics = {"TASKKIT_METRICS_PORT": str(port)} if port else {}
{%- endif %}
        #: When it was told to stop; 0: it was not.
        self.told = 0.0
        self.hurried = False
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"{% if cookiecutter.observability == "prometheus" %}, **metrics{% endif %}},
        )
        self.reader = threading.Thread(target=self._repeat_output, daemon=True)
        self.reader.start()

    def _repeat_output(self) -> None:
        for line in self.process.stdout or ():
            say(self.name, line.rstrip("\n"))

    def ended(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> None:
        """Ask it to end after what it does. Once: a second TERM would end a relay in the midst of it."""
        if not self.told:
            self.told = time.monotonic()
            self._signal(signal.SIGTERM)

    def hurry(self) -> None:
        """Ask a worker for a cold stop. Once: a second QUIT would not wait for its tasks at all."""
        if self.name.startswith("worker") and not self.hurried:
            self.hurried = True
            self._signal(signal.SIGQUIT)

    def _signal(self, number: int) -> None:
        if not self.ended():
            self.process.send_signal(number)

    def close(self) -> None:
        if not self.ended():
            say("run", f"{self.name} does not stop: killed; its messages go to the next worker")
            self.process.kill()
        self.process.wait()
        self.reader.join(timeout=1)


class Runner:
    """Starts the parts, lets them start anew when files change, waits for the end, stops them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.stops = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_stop)
        self.address = f"{options.host}:{options.port}"
{%- if cookiecutter.flower == "yes" %}
        self.flower_port = options.flower_port
{%- endif %}
        self.parts: list[Part] = []
        self.watcher = Watcher(say)
        self._follow(ask())

    def _follow(self, planned: Plan) -> None:
        #: Seconds for a warm stop, in which every task comes to its end.
        self.grace = max(grace for _, _, grace in planned)
        self.wanted = {
            **{name: arguments for name, arguments, _ in planned},
            "beat": ["-m", "celery", "-A", "config", "beat", "--loglevel=INFO", "--pidfile="],
            "relay": ["manage.py", "taskkit", "relay"],
            "web": ["manage.py", "runserver", "--noreload", self.address],
{%- if cookiecutter.flower == "yes" %}
            "flower": ["-m", "celery", "-A", "config", "flower", "--address=127.0.0.1", f"--port={self.flower_port}"],
{%- endif %}
        }
        for part in self.parts:
{%- if cookiecutter.flower == "yes" %}
            if part.name != "flower":  # it forgets what it has seen, and runs no code of the project
                part.stop()
{%- else %}
            part.stop()
{%- endif %}
        there = {part.name for part in self.parts}
        for name in self.wanted:
            if name not in there:
                self._start(name)

    def _start(self, name: str) -> None:
        self.parts.append(Part(name, self.wanted[name]))

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self.stops += 1

    def run(self, *, watch: bool) -> int:
        if watch:
            self.watcher.start()
        while not self.stops:
            with suppress(queue.Empty):
                self._follow(self.watcher.plans.get_nowait())
            for part in list(self.parts):
                if part.told:
                    self._renew(part)
                elif part.ended() and self.watcher.changed_lately():
                    say("run", f"{part.name} ended with code {part.process.returncode}: next try when a file changes")
                    self.parts.remove(part)
                elif part.ended():
                    say("run", f"{part.name} ended with code {part.process.returncode}: stopping the others")
                    self.stop()
                    return 1
            time.sleep(0.1)
        say("run", "stopping; tasks that run are let finish (Ctrl-C once more: 10 seconds at most)")
        self.stop()
        return 0

    def _renew(self, part: Part) -> None:
        """Start a part that was told to stop anew, once it has ended; until then, do not let it take too long."""
        waited = time.monotonic() - part.told
        if part.ended() or waited > RELOAD_GRACE + COLD_GRACE:
            part.close()
            self.parts.remove(part)
            if part.name in self.wanted:
                self._start(part.name)
        elif waited > RELOAD_GRACE:
            part.hurry()

    def stop(self) -> None:
        asked = self.stops
        senders_first = sorted(self.parts, key=lambda part: part.name.startswith("worker"))
        for part in senders_first:
            part.stop()
        if not self._wait(self.grace, until=lambda: self.stops > asked):
            for part in self.parts:
                part.hurry()
            self._wait(COLD_GRACE)
        for part in self.parts:
            part.close()
        say("run", "all stopped")

    def _wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not until():
            if all(part.ended() for part in self.parts):
                return True
            time.sleep(0.05)
        return False


def complaint(host: str, port: int) -> str:
    """Return why nothing can listen there; empty if it can."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        return f"{host}:{port} is not to be had: {exc.strerror}"
    return ""


def refuse(why: str) -> int:
    print(why, file=sys.stderr)
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
{%- if cookiecutter.flower == "yes" %}
    parser.add_argument("--flower-port", type=int, default=5555)
{%- endif %}
    options = parser.parse_args()
    os.chdir(HERE)
    if why := complaint(options.host, options.port):
        return refuse(f"{why}; free it, or take another: make run PORT={options.port + 1}")
    site = f"http://{options.host}:{options.port}/"
    say("run", f"{site}        the site")
    say("run", f"{site}admin/  the admin; `make admin` makes a user")
{%- if cookiecutter.flower == "yes" %}
    if why := complaint("127.0.0.1", options.flower_port):
        return refuse(f"{why}; free it, or take another for Flower: {sys.executable} run.py --flower-port 5556")
    if not (auth := Environment().text("FLOWER_BASIC_AUTH")):
        return refuse("FLOWER_BASIC_AUTH is empty: give Flower a name and a password in .env, as in name:password")
    os.environ["FLOWER_BASIC_AUTH"] = auth  # Flower reads no .env
    say("run", f"http://127.0.0.1:{options.flower_port}/  Flower; name and password are in .env: FLOWER_BASIC_AUTH")
{%- endif %}
    try:
        runner = Runner(options)
    except BrokenError as exc:
        return refuse(str(exc))
    return runner.run(watch=os.environ.get("RELOAD") != "0")


if __name__ == "__main__":
    sys.exit(main())
