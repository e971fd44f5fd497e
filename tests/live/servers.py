"""Whole servers that a test may break: RabbitMQ and PostgreSQL on free ports, with folders of their own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from waiting import free_port, wait_until

LOOPBACK = "127.0.0.1"


class RabbitMQServer:
    """A private RabbitMQ node on loopback. `kill` and `start` make an outage: what is durable is there again."""

    def __init__(self) -> None:
        self.programs = _rabbitmq_programs()
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="taskkit-rabbitmq-"))
        self.process: subprocess.Popen[bytes] | None = None
        (self.folder / "home").mkdir()
        (self.folder / "plugins").write_text("[].\n")
        self.environment = {
            **os.environ,
            "HOME": str(self.folder / "home"),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_FLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_NODENAME": f"taskkit-{uuid.uuid4().hex[:8]}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
        }

    @property
    def installed(self) -> bool:
        return self.programs is not None

    def url(self) -> str:
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}//"

    def start(self) -> RabbitMQServer:
        assert self.programs, "there is no rabbitmq-server on this machine"
        output = self.folder / "output.log"
        output.write_bytes(b"")
        with open(output, "ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "rabbitmq-server"],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def answers() -> bool:
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"rabbitmq-server ended:\n{output.read_text()}")
            return "completed with" in output.read_text()

        wait_until(answers, 180, f"rabbitmq-server on port {self.port} answers", interval=0.2)
        return self

    def queues(self) -> dict[str, int]:
        """Every queue and how many messages it has, ready or not."""
        done = self._control("list_queues", "name", "messages", "--no-table-headers")
        lines = (line.rpartition("\t") for line in done.splitlines() if "\t" in line)
        return {name: int(messages) for name, _, messages in lines}

    def _control(self, *arguments: str) -> str:
        assert self.programs
        command = [self.programs / "rabbitmqctl", "-q", "-n", self.environment["RABBITMQ_NODENAME"], *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    def keep_log(self, folder: Path) -> None:
        """Copy what the node wrote to ``folder``, before `close` deletes it."""
        for log in (self.folder / "log").glob("*.log"):
            shutil.copy(log, folder / f"rabbitmq.{log.name}")

    def kill(self) -> None:
        """End the whole node at once."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _rabbitmq_programs() -> Path | None:
    """The folder of the real scripts: Debian's on PATH change to another user, and know one node only."""
    for pattern in ("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin", "/opt/rabbitmq*/sbin"):
        for folder in sorted(Path("/").glob(pattern[1:]), reverse=True):
            if (folder / "rabbitmq-server").exists():
                return folder
    found = shutil.which("rabbitmq-server")
    return Path(found).parent if found else None


class PostgreSQLServer:
    """A private cluster on loopback. `kill` and `start` make an outage."""

    def __init__(self) -> None:
        self.programs = _postgresql_programs()
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="taskkit-postgresql-"))
        self.data = self.folder / "data"
        # It refuses to run as root; whoever is root uses the user that the packages make.
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            shutil.chown(self.folder, self.user)

    @property
    def installed(self) -> bool:
        return self.programs is not None

    def settings(self) -> dict[str, object]:
        """Django's settings of the database."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "HOST": LOOPBACK,
            "PORT": str(self.port),
            "USER": "postgres",
            "OPTIONS": {"connect_timeout": 3},
        }

    def start(self) -> PostgreSQLServer:
        assert self.programs, "there is no PostgreSQL server on this machine"
        if not self.data.exists():
            self._run("initdb", "-U", "postgres", "-A", "trust", "-N", "-D", str(self.data))
        options = f"-p {self.port} -k {self.folder} -c listen_addresses={LOOPBACK} -c fsync=off -c max_connections=60"
        log = str(self.folder / "server.log")
        self._run("pg_ctl", "-w", "-t", "120", "-D", str(self.data), "-l", log, "-o", options, "start")
        return self

    def kill(self) -> None:
        """Stop it without a checkpoint, as a crash would; sessions end with an error."""
        if (self.data / "postmaster.pid").exists():
            self._run("pg_ctl", "-w", "-D", str(self.data), "-m", "immediate", "stop")

    def close(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        assert self.programs
        subprocess.run(
            [self.programs / program, *arguments],
            user=self.user,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=150,
            check=True,
        )


def _postgresql_programs() -> Path | None:
    folders = Path("/usr/lib/postgresql").glob("*/bin/initdb")

    def version(program: Path) -> Sequence[int]:
        return [int(digits) for digits in re.findall(r"\d+", program.parent.parent.name)]

    newest = sorted(folders, key=version, reverse=True)
    found = newest[0] if newest else shutil.which("initdb")
    return Path(found).parent if found else None
