"""``manage.py taskkit doctor``: look at everything that runs, say what is wrong and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_taskkit.dlq.project import project_app
from django_taskkit.doctor.finding import SEVERITY, Finding, Level
from django_taskkit.doctor.probes import MODULES, PROBES
from django_taskkit.doctor.running import Probe, examine, worst
from django_taskkit.doctor.site import Site
from django_taskkit.exceptions import NoAppError
from django_taskkit.management.terminal import Output, output, shown

HELP = "Look at broker, queues, workers, beat, relay, database and result backend; say what is wrong and what to do."

TIMEOUT = 15.0
LEAST, MOST = 1.0, 3600.0
FORMAT = 1
"""Of the JSON; it changes when a key goes or means something else, not when one is added."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, as of any program in a shell."""

LABELS = {Level.OK: "ok", Level.UNKNOWN: "unknown", Level.WARNING: "WARNING", Level.ERROR: "ERROR"}


def add_arguments(parser: CommandParser) -> None:
    known = ", ".join(probe.name for probe in PROBES)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"this probe; repeatable: {known}")
    parser.add_argument("--skip", action="append", default=[], metavar="NAME", help="all but this probe; repeatable")
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT, metavar="S", help=f"seconds for each probe; default: {TIMEOUT:g}"
    )
    parser.add_argument(
        "--fail-on",
        choices=("warning", "error"),
        default="error",
        help="the least for which the exit code is 1; default: error",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def handle(command: BaseCommand, **options: Any) -> None:
    probes = _chosen(options["only"], options["skip"])
    if not LEAST <= options["timeout"] <= MOST:
        raise CommandError(
            f"--timeout is {options['timeout']:g}; give a number of seconds from {LEAST:g} to {MOST:g}.", returncode=2
        )
    try:
        app = project_app()
    except NoAppError as exc:
        raise CommandError(str(exc)) from exc
    site = Site(app, timeout=options["timeout"])
    # A worker imports them all, and knows their tasks; what other probes say of tasks is worth little without.
    if site.import_tasks() is not None and MODULES not in probes and MODULES.name not in options["skip"]:
        probes = [MODULES, *probes]
    try:
        found = list(examine(site, probes))
    except KeyboardInterrupt:
        raise CommandError("Interrupted; nothing was changed.", returncode=INTERRUPTED) from None
    level = worst(finding for _probe, finding in found)
    fails = SEVERITY[level] >= SEVERITY[Level(options["fail_on"])]
    with output(command) as out:
        if options["json"]:
            findings = [{"probe": probe.name, **finding.as_dict()} for probe, finding in found]
            out.json({"format": FORMAT, "level": level.value, "failed": fails, "findings": findings})
        else:
            _print(command, out, [finding for _probe, finding in found])
    if fails:
        raise SystemExit(1)


def _chosen(only: list[str], skip: list[str]) -> list[Probe]:
    known = [probe.name for probe in PROBES]
    for name in [*only, *skip]:
        if name not in known:
            raise CommandError(f"There is no probe {name!r}; there are {', '.join(known)}.", returncode=2)
    chosen = [probe for probe in PROBES if (not only or probe.name in only) and probe.name not in skip]
    if not chosen:
        raise CommandError("--skip leaves none of --only.", returncode=2)
    return chosen


def _print(command: BaseCommand, out: Output, found: list[Finding]) -> None:
    """Print a line for each finding, and below those that need something done, what that is and where to read more."""
    styles = {Level.ERROR: command.style.ERROR, Level.WARNING: command.style.WARNING}
    width = max((len(finding.id) for finding in found), default=0)
    for finding in found:
        # The text is a worker's or a server's; the style comes last, or its colours would be escaped as well.
        line = f"{LABELS[finding.level]:<8} {shown(finding.id):<{width}}  {shown(finding.text)}"
        out.line(styles.get(finding.level, str)(line))
        if finding.level is not Level.OK:
            indent = " " * (width + 11)
            if finding.remedy:
                out.line(f"{indent}{shown(finding.remedy)}")
            out.line(f"{indent}{finding.anchor}")
    out.line()
    out.line(_summary(found))


def _summary(found: Iterable[Finding]) -> str:
    counts = Counter(finding.level for finding in found)
    return ", ".join(f"{counts[level]} {level.value}" for level in reversed(Level) if counts[level]) + "."
