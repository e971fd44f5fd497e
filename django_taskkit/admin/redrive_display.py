"""How a redrive looks on a page. All text that comes from workers or operators is escaped here."""

from __future__ import annotations

from django.db import router
from django.db.models import Count, QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timeuntil
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_taskkit.admin import display
from django_taskkit.dlq.models import DeadLetter
from django_taskkit.dlq.redrive import canary
from django_taskkit.dlq.redrive.model import Redrive, RedriveMember
from django_taskkit.dlq.redrive.progress import is_abandoned, progress_of
from django_taskkit.outbox.presence import watch

SHOWN = 10
"""Reasons of refusals, and letters that failed again, that a page shows."""

State = Redrive.State


def name(row: Redrive) -> SafeString:
    """Show number and selection."""
    text = row.selection if len(row.selection) <= 200 else f"{row.selection[:200]}…"
    return format_html("{}<br><small>{}</small>", row.pk, text)


def state(row: Redrive) -> str:
    """Return the state, and what it waits for."""
    text = row.get_state_display()
    if is_abandoned(row):
        why = _("whoever made it was interrupted; it is never run, and may be cancelled")
        return f"{text}: {why}"
    if row.state == State.RUNNING and not canary.is_over(row) and (running := canary.running(row)):
        waits = ngettext(
            "the canary waits for %(count)d message to end", "the canary waits for %(count)d messages to end", running
        )
        return f"{text}: {waits % {'count': running}}"
    return text


def progress(row: Redrive) -> SafeString:
    """Show a bar, and the same in numbers for those who don't see it."""
    now = progress_of(row)
    text = _("%(done)d of %(total)d (%(percent)d %%)") % {
        "done": now.done,
        "total": now.total,
        "percent": now.percent,
    }
    bar = format_html(
        '<progress class="taskkit-progress" max="{}" value="{}" aria-label="{}">{} %</progress>',
        now.total or 1,
        now.done if now.total else 1,
        _("progress"),
        now.percent,
    )
    left = ""
    if now.eta is not None and now.waiting:
        moment = timezone.now()
        left = _("%(time)s left") % {"time": timeuntil(moment + now.eta, moment, depth=1)}
    return format_html("{} <span>{}</span> <small>{}</small>", bar, text, left)


def counts(row: Redrive) -> SafeString:
    """Show what became of how many."""
    now = progress_of(row)
    facts = {
        _("total"): now.total,
        _("waiting"): now.waiting,
        _("refused"): now.refused,
        _("sent"): now.sent,
        _("recovered"): now.recovered,
        _("failed again"): now.failed_again,
        _("still running"): now.running,
    }
    if row.same_again:
        facts[_("of them with the same failure")] = row.same_again
    if row.left_out:
        facts[_("left out, since another redrive has them")] = row.left_out
    rows = format_html_join("", '<tr><th scope="row">{}</th><td>{}</td></tr>', facts.items())
    return format_html('<table class="taskkit-table"><tbody>{}</tbody></table>', rows)


def rate(row: Redrive) -> str:
    """Return what was asked for, and what it is."""
    asked = _("as fast as it goes") if row.rate is None else _("%(rate)s/s") % {"rate": f"{row.rate:g}"}
    now = progress_of(row).rate
    return asked if now is None else _("%(asked)s (now %(rate).1f/s)") % {"asked": asked, "rate": now}


def runner(row: Redrive) -> str:
    """Return who runs it, or what to do if nobody does."""
    if row.state != State.RUNNING:
        return "-"
    if row.held_by and row.held_until and row.held_until > timezone.now():
        return row.held_by
    if watch.is_alive():
        return _("nobody yet; the relay takes it in a moment")
    return _("nobody: no relay has been seen for two minutes. Run %(relay)s, or %(here)s.") % {
        "relay": "manage.py taskkit relay",
        "here": f"manage.py taskkit redrive --resume {row.pk}",
    }


def refusals(row: Redrive) -> SafeString:
    """Show for which reasons members were refused, and how many."""
    refused = _members(row, RedriveMember.State.REFUSED)
    notes = refused.values_list("note").annotate(count=Count("pk")).order_by("-count", "note")
    lines = ((count, note) for note, count in notes[:SHOWN])
    return format_html('<ul class="taskkit-examples">{}</ul>', format_html_join("", "<li>{} &times; {}</li>", lines))


def failures(row: Redrive, site: str) -> SafeString:
    """Show the latest that failed again, with links to them."""
    failed = _members(row, RedriveMember.State.FAILED).select_related("dead_letter")
    heavy = ("body", "traceback", "headers", "properties")
    members = failed.defer(*(f"dead_letter__{column}" for column in heavy)).order_by("-pk")[:SHOWN]
    lines = (
        (
            reverse("admin:django_taskkit_deadletter_change", args=[member.dead_letter_id], current_app=site),
            member.dead_letter,
            display.exception(member.dead_letter),
        )
        for member in members
    )
    items = format_html_join("", '<li><a href="{}"><code>{}</code></a> {}</li>', lines)
    return format_html('<ul class="taskkit-examples">{}</ul>', items)


def _members(row: Redrive, state: RedriveMember.State) -> QuerySet[RedriveMember]:
    return RedriveMember.objects.using(router.db_for_write(DeadLetter)).filter(redrive=row, state=state)
