"""``manage.py taskkit VERB``: one command, its verbs in modules of their own."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

VERBS = {
    "probe": "django_taskkit.management.probe",
    "relay": "django_taskkit.management.relay",
}
"""A verb is a module with ``HELP``, ``add_arguments(parser)`` and ``handle(command, **options)``."""


class Command(BaseCommand):
    help = "What django-taskkit does from the command line."

    def add_arguments(self, parser: CommandParser) -> None:
        self._parser = parser
        self._broken: dict[str, Exception] = {}
        verbs = parser.add_subparsers(dest="verb", metavar="VERB")
        for verb, path in sorted(VERBS.items()):
            try:
                module = import_module(path)
                subparser = verbs.add_parser(verb, help=module.HELP, description=module.HELP)
                module.add_arguments(subparser)
            except Exception as exc:  # the other verbs must go on working
                if verb not in verbs.choices:
                    verbs.add_parser(verb, help=f"can't be loaded: {exc}")
                self._broken[verb] = exc

    def handle(self, *args: Any, verb: str | None = None, **options: Any) -> None:
        if not verb:
            self._parser.print_help(sys.stderr)
            raise SystemExit(2)
        if verb in self._broken:
            raise CommandError(f"The verb {verb!r} can't be loaded: {self._broken[verb]}") from self._broken[verb]
        import_module(VERBS[verb]).handle(self, **options)
