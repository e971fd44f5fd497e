"""``manage.py taskkit VERB``: one command, its verbs in modules of their own."""

from __future__ import annotations

import sys
from argparse import SUPPRESS
from importlib import import_module
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import translation

VERBS = {
    "discard": "django_taskkit.management.discard",
    "doctor": "django_taskkit.management.doctor",
    "export": "django_taskkit.management.export",
    "health": "django_taskkit.management.health",
    "import": "django_taskkit.management.import_",
    "list": "django_taskkit.management.list",
    "metrics": "django_taskkit.management.metrics",
    "probe": "django_taskkit.management.probe",
    "purge": "django_taskkit.management.purge",
    "redrive": "django_taskkit.management.redrive",
    "relay": "django_taskkit.management.relay",
    "requeue": "django_taskkit.management.requeue",
    "routes": "django_taskkit.management.routes",
    "schedule": "django_taskkit.management.schedule",
    "show": "django_taskkit.management.show",
    "worker": "django_taskkit.management.worker",
    "workers": "django_taskkit.management.workers",
}
"""A verb is a module with ``HELP``, ``add_arguments(parser)`` and ``handle(command, **options)``."""


def _add_options_of_django(parser: CommandParser) -> None:
    """Let Django's own options stand behind a verb as well; there they have no default, or they would undo the others.

    ``--settings`` above all, with which every other command of Django ends.
    """
    for name in ("--settings", "--pythonpath"):
        parser.add_argument(name, default=SUPPRESS, help=SUPPRESS)
    for name in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
        parser.add_argument(name, action="store_true", default=SUPPRESS, help=SUPPRESS)
    parser.add_argument("-v", "--verbosity", type=int, choices=[0, 1, 2, 3], default=SUPPRESS, help=SUPPRESS)


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
                _add_options_of_django(subparser)
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
        with translation.override(None):  # what is said is in English whatever the project's language
            import_module(VERBS[verb]).handle(self, **options)
