"""A generated project in production: its settings, its release, its processes, and the world around it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from tests.live.waiting import free_port, wait_until
from tests.template.boot.console import Console
from tests.template.boot.deployment import LANES, Service, services
from tests.template.boot.processes import Process
from tests.template.boot.servers import servers_for
from tests.template.boot.variants import Variant
from tests.template.boot.world import HOST, Collector, Front, Geocoder, MailServer

PROBE = (sys.executable, "-m", "django_taskkit.observability.health")
PATIENCE = 120
"""Seconds in which whatever is awaited has to happen, on a machine that others use as well."""

PASSWORD = secrets.token_urlsafe(12)
SEPARATORS = {"sqs": "-"}
"""Between the project and the lane, in the name of a queue; elsewhere a full stop."""


class Site:
    """One variant that runs."""

    console: Console

    def __init__(
        self, variant: Variant, baked: Any, kept: Path, servers: dict[str, str], stack: contextlib.ExitStack
    ) -> None:
        self.variant = variant
        self.path: Path = baked.path
        self.kept = kept
        """Where logs and screenshots go."""
        self.mail = MailServer()
        stack.callback(self.mail.end)
        self.geocoder = Geocoder()
        stack.callback(self.geocoder.end)
        self.ports = {name: free_port() for name in ("web", "flower", "exporter")}
        self.front = Front(self.kept, self.ports["web"])
        stack.callback(self.front.end)
        (self.path / ".env").unlink()  # a machine in production has its own
        (self.path / "boot_settings.py").write_text(variant.settings)
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ},
            "PYTHONPATH": baked.environment()["PYTHONPATH"],
            "PYTHONDONTWRITEBYTECODE": "1",
            "DJANGO_SETTINGS_MODULE": "boot_settings",
            "SECRET_KEY": secrets.token_urlsafe(50),
            "ALLOWED_HOSTS": HOST,
            "BEHIND_PROXY": "1",
            "SITE_URL": self.front.url,
            "RELEASE": "boot-1",
            "EMAIL_HOST": "127.0.0.1",
            "EMAIL_PORT": str(self.mail.port),
            "DIGEST_TO": "owner@shop.example",
            "GEOCODER_URL": self.geocoder.url,
            "TASKKIT_HEALTH_DIR": str(self.path / "var" / "health"),
            "FLOWER_BASIC_AUTH": f"ann:{PASSWORD}",
            **servers,
            **variant.environment,
        }
        if variant.observability == "opentelemetry":
            self.collector = Collector()
            stack.callback(self.collector.end)
            # Seconds, here thousands of them, from one sending of the numbers to the next.
            self.environment |= {
                "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.url,
                "OTEL_METRIC_EXPORT_INTERVAL": "5000",
            }
        self.processes: dict[str, Process] = {}
        self.is_over = False

    # -- what is done to it

    def release(self) -> None:
        """What a deployment does before it starts anything."""
        self.manage("collectstatic", "--noinput", "--verbosity=0")
        self.manage("migrate", "--noinput", "--verbosity=0")
        self.manage("createcachetable")

    def manage(self, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=self.path,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self) -> None:
        for service in services(self.path, self.variant.deployment):
            self.processes[service.name] = self.process_of(service).start()
        self.console = Console(self.path, self.environment, self.kept / "console.log")
        self.ask("make_owner(password)", password=PASSWORD)
        wait_until(lambda: self.get("/readyz")[0] == 200, PATIENCE, "the web is ready", interval=0.5)
        for process in self.processes.values():
            if process.probe:
                wait_until(process.is_well, PATIENCE, f"{process.name} is well", interval=0.5)

    def process_of(self, service: Service) -> Process:
        environment = dict(self.environment)
        if "TASKKIT_METRICS_PORT" in service.environment:
            self.ports[service.name] = free_port()
            environment["TASKKIT_METRICS_PORT"] = f"127.0.0.1:{self.ports[service.name]}"
        lane = service.name.removeprefix("worker-") if service.name.startswith("worker-") else ""
        probe: list[str] = []
        if lane:
            probe = [*PROBE, "worker", "--queue", self.queue(lane)]
        elif service.name in ("beat", "relay"):
            probe = [*PROBE, service.name]
        return Process(
            service.name,
            [*self._on_this_machine(service)],
            folder=self.path,
            environment=environment,
            log=self.kept / f"{service.name}.log",
            grace=service.grace,
            probe=probe,
        )

    def _on_this_machine(self, service: Service) -> Iterator[str]:
        """The command as it stands in the deployment file, with this environment's programs, and free ports."""
        program, *arguments = service.command
        yield str(Path(sys.executable).with_name(Path(program).name))
        for argument in arguments:
            if argument.startswith("--bind=") and service.name == "web":
                continue
            if argument.startswith("--port=") and service.name == "flower":
                yield f"--port={self.ports['flower']}"
            else:
                yield re.sub(r"^[\d.]+:91[08]0$", f"127.0.0.1:{self.ports['exporter']}", argument)
        if service.name == "web":
            yield f"--bind=127.0.0.1:{self.ports['web']}"

    def stop(self) -> None:
        """As a machine that is shut down: all at once, and KILL for whoever is not done in time."""
        self.is_over = True
        running = [process for process in self.processes.values() if process.runs]
        for process in running:
            process.term()
        for process in running:
            process.ends()

    def kill_process(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def start_what_is_down(self) -> None:
        """After a test that failed in its midst, for the others."""
        for process in self.processes.values():
            if not process.runs and not self.is_over:
                process.start()

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
        if hasattr(self, "console"):
            self.console.end()

    # -- what is asked of it

    @property
    def web(self) -> Process:
        return self.processes["web"]

    def worker(self, lane: str) -> Process:
        return self.processes[f"worker-{lane}"]

    def queue(self, lane: str) -> str:
        return f"shop{SEPARATORS.get(self.variant.broker, '.')}{lane}"

    def ask(self, code: str, **names: Any) -> Any:
        return self.console.ask(code, **names)

    def wait(self, code: str, message: str, within: float = PATIENCE, **names: Any) -> Any:
        return wait_until(lambda: self.ask(code, **names), within, message, interval=0.3)

    def get(self, path: str, port: str = "web", **headers: str) -> tuple[int, str]:
        """What a probe gets that asks from inside, without HTTPS."""
        request = Request(f"http://127.0.0.1:{self.ports[port]}{path}", headers={"Host": HOST, **headers})
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=15) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)


@contextlib.contextmanager
def running(variant: Variant, bake: Any, kept: Path) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(servers_for(variant))
        baked = bake(**variant.answers)
        stack.callback(shutil.rmtree, baked.path, ignore_errors=True)
        site = Site(variant, baked, kept, servers, stack)
        stack.callback(site.end)
        site.release()
        site.start()
        yield site


__all__ = ["LANES", "PASSWORD", "PATIENCE", "Site", "running"]
