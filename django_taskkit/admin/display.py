"""How a dead letter looks on a page. All text from workers is escaped here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from celery.app import app_or_default
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext as _

from django_taskkit import conf
from django_taskkit.dlq.models import DeadLetter
from django_taskkit.dlq.preflight import Color, Preflight
from django_taskkit.dlq.privacy import named_arguments, redacted
from django_taskkit.dlq.text import shortened, storable
from django_taskkit.envelope import UndecodableError

SHOWN_LENGTH = 10_000
"""Characters of one argument that are shown; the message itself is stored whole."""

_UNSHOWN_HEADERS = {
    "argsrepr",
    "kwargsrepr",
}  # the arguments once more, as text that can't be redacted by name


def arguments(row: DeadLetter) -> SafeString:
    """Show the arguments by name, with what tells a secret hidden."""
    try:
        args, kwargs, _embed = row.envelope.payload()
    except UndecodableError as exc:
        return format_html("<p>{}</p>", _("The arguments can't be shown: %s.") % exc)
    names = conf.current().redact
    return _table(redacted(named_arguments(app_or_default(), row.task_name, args, kwargs), names))


def verdict(row: DeadLetter) -> SafeString:
    """Show what the message itself tells of a requeue; neither workers nor broker are asked."""
    found = Preflight(app_or_default(), ask=False).verdict(row)
    if not found.findings:
        return _color(found.color, _("Nothing in the message speaks against a requeue."))
    lines = ((_color(finding.color, finding.text),) for finding in found.findings)
    return format_html('<ul class="taskkit-findings">{}</ul>', format_html_join("", "<li>{}</li>", lines))


def message(row: DeadLetter) -> SafeString:
    """Show how the message travels: headers, properties, and the size of its body."""
    names = conf.current().redact
    headers = {key: value for key, value in row.headers.items() if key not in _UNSHOWN_HEADERS and value is not None}
    facts = {
        _("body"): _("%(size)s bytes, %(type)s, %(encoding)s")
        % {"size": len(row.body), "type": row.content_type, "encoding": row.content_encoding},
        _("exchange"): row.exchange or _("(default)"),
        _("routing key"): row.routing_key,
        _("headers"): redacted(headers, names),
        _("properties"): redacted(row.properties, names),
    }
    return _table(facts)


def traceback(row: DeadLetter) -> SafeString:
    """Show the traceback as Python printed it."""
    return format_html('<pre class="taskkit-traceback" tabindex="0">{}</pre>', row.traceback or "-")


def exception(row: DeadLetter, length: int = 120) -> str:
    """Return the exception in one line for a list."""
    text = ": ".join(filter(None, [row.exception_class.rpartition(".")[2], row.exception_message]))
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _color(color: Color, text: str) -> SafeString:
    return format_html('<span class="taskkit-color taskkit-{}">{}</span> {}', color.value, color.label, text)


def age(moment: datetime) -> SafeString:
    """Show how long ago ``moment`` was."""
    text = timesince(moment, timezone.now(), depth=1)
    return format_html('<time datetime="{}">{}</time>', moment.isoformat(), text)


def _table(values: Mapping[str, Any]) -> SafeString:
    if not values:
        return format_html("<p>{}</p>", _("none"))
    rows = format_html_join(
        "\n",
        '<tr><th scope="row">{}</th><td><pre>{}</pre></td></tr>',
        ((shortened(storable(str(key)), SHOWN_LENGTH), _text(value)) for key, value in values.items()),
    )
    return format_html('<table class="taskkit-table"><tbody>{}</tbody></table>', rows)


def _text(value: Any) -> str:
    if isinstance(value, str):
        text = value
    else:
        try:
            text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
        except (TypeError, ValueError, RecursionError):
            text = repr(value)
    return shortened(storable(text), SHOWN_LENGTH)
