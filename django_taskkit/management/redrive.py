"""``manage.py taskkit redrive``: put many dead letters back, paced and watched; a relay can take over at any moment."""

from __future__ import annotations

import argparse
import os
import socket
import uuid
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import router
from django.db.models import QuerySet

from django_taskkit.dlq.models import DeadLetter
from django_taskkit.dlq.preflight import Preflight
from django_taskkit.dlq.project import project_app
from django_taskkit.dlq.redrive import control
from django_taskkit.dlq.redrive.creation import create_redrive
from django_taskkit.dlq.redrive.model import Redrive
from django_taskkit.dlq.redrive.runner import Runner
from django_taskkit.exceptions import NoAppError
from django_taskkit.management import chosen
from django_taskkit.management.filters import coming, given
from django_taskkit.management.redriving import TableOfRedrives, Terminal, facts_of
from django_taskkit.management.requeue import preview, warn_of_queue
from django_taskkit.management.terminal import confirm, counted, output, shown
from django_taskkit.outbox.presence import watch

HELP = "Put many dead letters back: at a pace, with a canary first, stoppable, and going on when this process ends."

State = Redrive.State


def add_arguments(parser: CommandParser) -> None:
    chosen.add_arguments(parser, "redrive")
    how = parser.add_argument_group("how")
    how.add_argument("--rate", type=_rate, metavar="N", help="messages per second; by default as fast as it goes")
    how.add_argument("--canary", action="store_true", help="send 1, then 5, 25, ..., and stop if the failure is back")
    how.add_argument("--to-queue", type=given, metavar="NAME", help="another queue than the one each came from")
    how.add_argument("--not-before", type=coming, metavar="TIME", help="let them run only then: 2026-11-21T22:00, 2h")
    how.add_argument("--despite-preflight", action="store_true", help="also what the preflight calls red")
    how.add_argument(
        "--even-if-ran", action="store_true", help="also tasks that had ended well and will do their work once more"
    )
    how.add_argument("--reset-results", action="store_true", help="forget their results; they are PENDING again")
    how.add_argument("--detach", action="store_true", help="let the relay run it; this command ends at once")
    there = parser.add_argument_group("redrives that are there").add_mutually_exclusive_group()
    there.add_argument("--list", dest="list_redrives", action="store_true", help="show the latest ones")
    for name, does in (
        ("watch", "follow it until all of it has ended"),
        ("pause", "send nothing more of it until it is resumed"),
        ("resume", "go on with it, here, or with --detach in the relay"),
        ("cancel", "send nothing more of it, ever"),
    ):
        there.add_argument(f"--{name}", type=int, metavar="ID", help=does)


def handle(command: BaseCommand, **options: Any) -> None:
    if options["list_redrives"]:
        with output(command) as out:
            TableOfRedrives(out, options["json"]).write(_rows().order_by("-created_at", "-pk"))
    elif options["watch"] is not None:
        _follow(command, options, _get(options["watch"]), None)
    elif options["pause"] is not None:
        _change(command, options, "pause", partial(control.pause, by=chosen.operator()))
    elif options["cancel"] is not None:
        _change(command, options, "cancel", partial(control.cancel, by=chosen.operator()))
    elif options["resume"] is not None:
        _resume(command, options)
    else:
        _make(command, options)


def _make(command: BaseCommand, options: dict[str, Any]) -> None:
    app = _app()
    selection, found = chosen.choose(options)
    chosen.say_left_out(command, options, selection, found)
    preflight = None
    if not options["despite_preflight"]:
        preflight = Preflight(app, queue=options["to_queue"], even_if_ran=options["even_if_ran"])
    if options["dry_run"]:
        with output(command) as out:
            if options["json"]:
                out.json({"would_redrive": found.count})
            else:
                out.line(f"Would redrive {counted(found.count)}.")
            preview(preflight, options["json"], out, found)
        return
    if not found.count:
        with output(command) as out:
            if options["json"]:
                out.json({"id": None, "total": 0})
            else:
                out.line("No dead letter matches.")
        if found.missing:
            raise CommandError("No redrive was made.")
        return
    warn_of_queue(command, preflight, options, found)
    confirm(f"Redrive {counted(found.count)}?", yes=options["yes"], nothing="Nothing was redriven")
    names = ("rate", "canary", "not_before", "despite_preflight", "even_if_ran", "reset_results")
    holder = "" if options["detach"] else _holder()
    redrive = create_redrive(
        found.rows,
        selection=str(selection) or "--all",
        by=chosen.operator(),
        queue=options["to_queue"],
        holder=holder,
        **{name: options[name] for name in names},
    )
    _say_made(command, options, redrive)
    if not options["detach"]:
        _follow(command, options, redrive, Runner(redrive.pk, app, holder))


def _say_made(command: BaseCommand, options: dict[str, Any], redrive: Redrive) -> None:
    with output(command) as out:
        if options["json"]:
            out.json(facts_of(redrive))
        else:
            out.line(f"Redrive {redrive.pk} has {counted(redrive.total)}.")
            if redrive.left_out:
                out.line(f"{counted(redrive.left_out)} left out: another redrive has them.")
    if options["detach"] and not options["json"]:
        command.stderr.write(_who_goes_on(redrive), str)


def _resume(command: BaseCommand, options: dict[str, Any]) -> None:
    redrive = _get(options["resume"])
    if not control.resume(redrive) and redrive.state != State.RUNNING:
        raise CommandError(f"Redrive {redrive.pk} is {redrive.state}; it can't be resumed.")
    # Else it would still look stopped, and following it would end at once.
    redrive.refresh_from_db()
    if options["detach"]:
        _report(command, options, redrive)
        command.stderr.write(_who_goes_on(redrive), str)
    else:
        _follow(command, options, redrive, Runner(redrive.pk, _app(), _holder()))


def _change(command: BaseCommand, options: dict[str, Any], verb: str, change: Any) -> None:
    redrive = _get(options[verb])
    if not change(redrive):
        raise CommandError(
            f"Redrive {redrive.pk} is {redrive.state}; it can't be {verb}{'d' if verb[-1] == 'e' else 'led'}."
        )
    _report(command, options, redrive)


def _follow(command: BaseCommand, options: dict[str, Any], redrive: Redrive, runner: Runner | None) -> None:
    """Show it until it ends, and run it meanwhile if there is a ``runner``."""
    try:
        Terminal(command.stderr, redrive, runner).follow()
    except KeyboardInterrupt:
        redrive.refresh_from_db()
        said = "" if runner is None else f" {_who_goes_on(redrive)}"
        raise CommandError(f"Interrupted.{said}", returncode=chosen.INTERRUPTED) from None
    _report(command, options, redrive)
    redrive.refresh_from_db()
    failed = redrive.failed_again if runner is None else 0
    if redrive.state == State.STOPPED:
        raise CommandError(f"Redrive {redrive.pk} has stopped; --resume {redrive.pk} goes on all the same.")
    if redrive.state == State.CANCELLED:
        raise CommandError(f"Redrive {redrive.pk} was cancelled.")
    if redrive.refused or failed:
        raise CommandError(f"Refused: {redrive.refused}; failed again: {redrive.failed_again}.")


def _report(command: BaseCommand, options: dict[str, Any], redrive: Redrive) -> None:
    redrive.refresh_from_db()
    facts = facts_of(redrive)
    with output(command) as out:
        if options["json"]:
            out.json(facts)
            return
        out.line(
            f"Redrive {redrive.pk} is {redrive.state}: "
            f"{redrive.sent} of {redrive.total} sent, {redrive.refused} refused, "
            f"{redrive.recovered} recovered, {redrive.failed_again} failed again, {facts['running']} still run."
        )
        if redrive.why:
            out.line(shown(redrive.why))
        for note, count in facts["refusals"].items():
            out.line(shown(f"  refused: {count} x {note}"))


def _who_goes_on(redrive: Redrive) -> str:
    if redrive.state != State.RUNNING:
        return f"Redrive {redrive.pk} is {redrive.state}."
    how = f"--watch {redrive.pk} shows it, --pause {redrive.pk} and --cancel {redrive.pk} stop it."
    if watch.is_alive():
        return f"The relay goes on with redrive {redrive.pk}; {how}"
    here = f"`manage.py taskkit redrive --resume {redrive.pk}`"
    return f"No relay has been seen for two minutes: start one, or {here}, to go on with redrive {redrive.pk}; {how}"


def _get(pk: int) -> Redrive:
    redrive = _rows().filter(pk=pk).first()
    if redrive is None:
        raise CommandError(f"There is no redrive {pk}; --list shows those there are.", returncode=2)
    return redrive


def _rows() -> QuerySet[Redrive]:
    return Redrive.objects.using(router.db_for_write(DeadLetter))


def _holder() -> str:
    return f"{socket.gethostname()[:200]}:{os.getpid()} {uuid.uuid4().hex[:8]}"


def _app() -> Any:
    try:
        return project_app()
    except NoAppError as exc:
        raise CommandError(str(exc)) from exc


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no rate; give a number of messages per second above 0")
    return rate
