"""``manage.py taskkit relay``: send what waits in the outbox, for as long as the process lives."""

from __future__ import annotations

import json
import logging
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from django_taskkit import conf
from django_taskkit.dlq.project import project_app
from django_taskkit.dlq.publisher import BrokerUnreachableError
from django_taskkit.exceptions import NoAppError
from django_taskkit.management.stopping import stopped_by_signals
from django_taskkit.observability.health.signs import SignOfLife
from django_taskkit.outbox.relay import Relay, Relayed

logger = logging.getLogger("django_taskkit")

HELP = "Send the messages that wait in the outbox, and bring in dead letters that could not be written at the time."


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("--once", action="store_true", help="send what is due, and end; exit code 1 after an error")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between looks into the outbox")
    parser.add_argument("--batch", type=int, default=100, help="messages of one queue that a round sends")
    parser.add_argument("--health-file", type=Path, help="a JSON file that says after each round how it went")


def handle(command: BaseCommand, **options: Any) -> None:
    if options["interval"] <= 0:
        raise CommandError(f"--interval is {options['interval']}; give a number of seconds above 0.")
    if options["batch"] < 1:
        raise CommandError(f"--batch is {options['batch']}; give a whole number, 1 or more.")
    try:
        relay = Relay(project_app(), batch=options["batch"])
    except NoAppError as exc:
        raise CommandError(str(exc)) from exc
    report = Report(relay, options["health_file"])
    if options["once"]:
        try:
            _run_once(command, relay, report)
        finally:
            report.end()
        return
    if conf.current().metrics:
        from django_taskkit.observability.metrics.serving import serve_if_asked

        serve_if_asked()
    stop = threading.Event()
    with stopped_by_signals(stop):
        command.stdout.write(f"The relay {relay.name} sends what waits in the outbox. Ctrl-C ends it.")
        relay.run(stop, options["interval"], report)
        report.end()
    command.stdout.write(f"The relay {relay.name} has ended; it sent {_counted(report.published, 'message')}.")


def _run_once(command: BaseCommand, relay: Relay, report: Report) -> None:
    refused = 0
    with _said_once() as said:
        while True:
            done = relay.run_once()
            report(done)
            refused += done.refused
            if done.errors:
                said.by_the_command("; ".join(done.errors))
                raise CommandError("; ".join(done.errors))
            if not done.did_something:
                break
    letters = _counted(report.brought_in, "dead letter")
    was = "was" if report.brought_in == 1 else "were"
    command.stdout.write(f"Sent {_counted(report.published, 'message')}; {letters} {was} brought in.")
    if refused:
        which = "which is" if refused == 1 else "which are"
        messages = _counted(refused, "message")
        command.stdout.write(f"The broker refused {messages}, {which} tried again later; the log says why.")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


class _OutagesOnce(logging.Filter):
    """Holds back what parts of the relay log of a broker that is away, until it is known whether the command says it.

    Each part that needs the broker says so in its own words, which is right for a relay that goes on running.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, logging.LogRecord] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        causes = [str(arg) for arg in record.args or () if isinstance(arg, BrokerUnreachableError)]
        for cause in causes:
            self._held.setdefault(cause, record)
        return not causes

    def by_the_command(self, error: str) -> None:
        self._held = {cause: record for cause, record in self._held.items() if cause not in error}

    def let_go(self) -> None:
        for record in self._held.values():
            logger.handle(record)


@contextmanager
def _said_once() -> Iterator[_OutagesOnce]:
    outages = _OutagesOnce()
    logger.addFilter(outages)
    try:
        yield outages
    finally:
        logger.removeFilter(outages)
        outages.let_go()


class Report:
    """Adds the rounds up, and writes them to a file that a health check can read."""

    def __init__(self, relay: Relay, path: Path | None) -> None:
        self.relay = relay
        self.path = path
        self.published = self.brought_in = 0
        self._sign = SignOfLife("relay", socket.gethostname())

    def __call__(self, done: Relayed) -> None:
        self.published += done.published
        self.brought_in += done.spooled + done.taken_in
        if self.path is None and not self._sign.is_due():
            return
        facts = self._facts(done)
        self._sign.write(facts)
        if self.path is not None:
            self._write(self.path, facts)

    def end(self) -> None:
        """Take the sign of life away; what is killed leaves it."""
        self._sign.remove()

    def _facts(self, done: Relayed) -> dict[str, Any]:
        errors = list(done.errors)
        waiting: int | None = None
        oldest: float | None = None
        try:
            waiting, oldest = self.relay.waiting()
        except Exception as exc:
            errors.append(f"waiting: {exc}")
        return {
            "at": timezone.now().isoformat(),
            "relay": self.relay.name,
            "published": self.published,
            "waiting": waiting,
            "oldest_seconds": oldest,
            "errors": errors,
        }

    @staticmethod
    def _write(path: Path, facts: dict[str, Any]) -> None:
        new: Path | None = None
        try:
            # A reader sees the old file or the new one, never half of it.
            with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
                new = Path(file.name)
                json.dump(facts, file)
            new.chmod(0o644)
            new.replace(path)
        except OSError as exc:
            logger.error("the health file %s can't be written: %s", path, exc)
            if new is not None:  # on a full disk, one would be left by each round
                with suppress(OSError):
                    new.unlink(missing_ok=True)
