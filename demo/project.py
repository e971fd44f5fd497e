"""The project of the demo: the template with its defaults, in a throw-away folder, up and running."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from environment import Environment, SetupError

ADMIN = "admin"
LANES = ("customers", "reports", "geocoding", "default")


class Project:
    """Renders, prepares, starts and stops the generated project."""

    def __init__(self, environment: Environment, folder: Path, port: int | None):
        self.environment = environment
        self.python = str(environment.python)
        self.folder = folder
        self.path = folder / "shop"
        self.log = folder / "shop.log"
        self.port = port or free_port()
        self.address = f"http://127.0.0.1:{self.port}/"
        self.password = secrets.token_urlsafe(9)
        self.runner: subprocess.Popen[bytes] | None = None

    def render(self) -> None:
        self.environment.render(self.folder)

    def manage(self, *arguments: str, **environment: str) -> str:
        return self._run("manage.py", *arguments, cwd=self.path, **environment)

    def migrate(self) -> None:
        self.manage("migrate", "--verbosity", "0")
        self.manage("createcachetable")

    def create_admin(self) -> None:
        options = ("--noinput", "--username", ADMIN, "--email", "admin@example.org")
        self.manage("createsuperuser", *options, DJANGO_SUPERUSER_PASSWORD=self.password)

    def _run(self, *arguments: str, cwd: Path, **environment: str) -> str:
        command = [self.python, *arguments]
        env = {**self._environment(), **environment}
        done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SetupError(f"{' '.join(arguments[:2])} failed with code {done.returncode}:\n{done.stdout}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        """Return this environment without what would change the project's settings."""
        example = self.path / ".env.example"
        lines = example.read_text(encoding="utf-8").splitlines() if example.exists() else []
        own = {line.partition("=")[0] for line in lines if not line.startswith("#")}
        own |= {"DJANGO_SETTINGS_MODULE", "PYTHONPATH", "PYTHONHOME"}
        return {name: value for name, value in os.environ.items() if name not in own}

    def start(self) -> None:
        """Start web, worker, beat and relay, by the project's own runner; return once the site answers."""
        if not is_free(self.port):
            raise SetupError(f"port {self.port} is taken; give another one with --port, or none")
        with open(self.log, "wb") as log:
            self.runner = subprocess.Popen(
                [self.python, "run.py", "--port", str(self.port)],
                cwd=self.path,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the runner
            )
        wait_until(self._web_is_ready, 60, "the site to answer", self.is_running)

    def place_orders(self) -> None:
        """Send a dozen tasks, by the project's own command."""
        self.manage("place_demo_orders")

    def place_past_orders(self) -> None:
        """Make up what there is to report and to export, by the project's own command."""
        self.manage("place_past_orders")

    def wait_for_processes(self) -> None:
        """Return once a worker for each lane, beat and relay do their work."""
        for probe in (*(f"worker --queue=shop.{lane}" for lane in LANES), "beat", "relay"):
            wait_until(lambda probe=probe: self._works(probe), 60, f"{probe} to work", self.is_running)  # type: ignore[misc]

    def is_running(self) -> bool:
        return self.runner is not None and self.runner.poll() is None

    def _web_is_ready(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self.address + "readyz", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def _works(self, probe: str) -> bool:
        """Ask for a process's sign of life, as what runs it in production would."""
        command = [self.python, "-m", "django_taskkit.observability.health", *probe.split()]
        env = {**self._environment(), "TASKKIT_HEALTH_DIR": str(self.path / "var" / "health")}
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True).returncode == 0

    def stop(self) -> None:
        """Stop what was started, by its process id; tasks that run are let finish."""
        if self.runner is None:
            return
        self._signal(signal.SIGINT)
        deadline = time.monotonic() + 100
        while self.runner.poll() is None:
            try:
                self.runner.wait(timeout=1)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    self.runner.kill()
            except KeyboardInterrupt:
                self._signal(signal.SIGINT)  # a second Ctrl-C: the runner hurries

    def _signal(self, number: int) -> None:
        if self.runner is not None and self.runner.poll() is None:
            self.runner.send_signal(number)

    def log_tail(self, lines: int = 60) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def wait_until(
    condition: Callable[[], object], seconds: float, what: str, alive: Callable[[], bool] = lambda: True
) -> None:
    """Return once `condition` is true.

    Raises:
        SetupError: it did not become true in time, or never can, as what it waits for is not alive.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if not alive():
            raise SetupError(f"waited for {what}, but the project has stopped")
        if time.monotonic() > deadline:
            raise SetupError(f"waited {seconds:.0f} seconds for {what}, in vain")
        time.sleep(0.5)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
