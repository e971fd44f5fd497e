"""``manage.py taskkit health``: does what runs here work? The probe that knows the settings.

Importing Django and the project costs it a second of CPU each time; ``python -m django_taskkit.observability.health``
does the same in a twentieth of that.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.observability.health import probe
from django_taskkit.observability.health.files import AddressError, FolderError
from django_taskkit.observability.health.signs import folder

HELP = "Say whether the workers, the beat, the relay or the web process of this machine work; exit code 1 if not."


def add_arguments(parser: CommandParser) -> None:
    probe.add_arguments(parser)


def handle(command: BaseCommand, **options: Any) -> None:
    if options["max_age"] is not None and options["max_age"] <= 0:
        raise CommandError(f"--max-age is {options['max_age']}; give a number of seconds above 0.")
    asked = {name: options[name] for name in ("role", "max_age", "alive", "name", "queues", "url", "host")}
    try:
        well, wrong = probe.probe(folder=options["folder"] or folder(), **asked)
    except (AddressError, FolderError, ConfigurationError) as exc:
        raise CommandError(str(exc), returncode=2) from exc
    for line in wrong:
        command.stderr.write(probe.printable(line))
    for line in well:
        command.stdout.write(probe.printable(line))
    if wrong:
        raise SystemExit(1)
