"""One form field for one argument, chosen by its type hint and by what it is now.

What is not touched must stay exactly what it was, so a field is chosen only for a value that it can show without loss;
everything else is edited as JSON.
"""

from __future__ import annotations

import typing
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

from django import forms
from django.utils.translation import gettext as _
from kombu.utils import json as kombu_json

from django_taskkit.dlq.calls import is_deep, same
from django_taskkit.dlq.editing import ABSENT
from django_taskkit.dlq.hints import is_plain, without_none, zoned

LONGEST_TEXT = 100_000
"""Characters of JSON; what is longer can't be edited in a page."""

_LONGEST_LINE = 80


class LineKeepingField(forms.CharField):
    """Text with the line ends that it had: browsers send other ones."""

    def __init__(self, **options: Any) -> None:
        super().__init__(strip=False, empty_value="", **options)

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        return text.replace("\r\n", "\n") if isinstance(text, str) else text

    def has_changed(self, initial: Any, data: Any) -> bool:
        return str(initial or "") != str(data or "").replace("\r\n", "\n")


class MessageJSONField(LineKeepingField):
    """A value as JSON, with kombu's marks for dates, decimals and the like: ``{"__type__": "decimal", ...}``."""

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if not text.strip():
            return ABSENT
        try:
            found = kombu_json.loads(text)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as exc:
            raise forms.ValidationError(_("This is not JSON: %s.") % exc) from exc
        if is_deep(found):
            raise forms.ValidationError(_("This is not JSON: %s.") % _("it is nested too deep"))
        return found

    def validate(self, value: Any) -> None:
        """Take any value."""

    def run_validators(self, value: Any) -> None:
        """Take any value."""


class ISODateTimeField(LineKeepingField):
    """A time with the zone that it has, or with none."""

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value).strip()
        if not text:
            return ABSENT
        try:
            return datetime.fromisoformat(zoned(text))
        except ValueError as exc:
            raise forms.ValidationError(_("Give a time such as 2026-11-21T12:00:00+00:00.")) from exc

    def run_validators(self, value: Any) -> None:
        """Take any time."""


class ChoiceOfValuesField(forms.TypedChoiceField):
    """One of several values, each by its number or name; ``True`` and ``1`` are two."""

    def has_changed(self, initial: Any, data: Any) -> bool:
        return str(initial or "") != str(data or "")


def field_for(hint: Any, value: Any, *, as_text: bool = False) -> forms.Field | None:
    """Return a field, not required, with ``value`` in it; None if it can't be edited in a page.

    Args:
        hint: the parameter's, as resolved.
        value: what it is now; :data:`ABSENT` for an empty field.
        as_text: as JSON in any case: the parameter stands for several values, or parts are hidden.
    """
    inner, _may_be_none = without_none(hint)
    is_empty = value is ABSENT or value is None
    if not as_text:
        if choices := _choices(inner):
            return _choice_field(choices, value)
        make = _PLAIN.get(inner) if isinstance(inner, type) else None
        if make is not None and (is_empty or is_plain(value, inner)):
            return make(None if is_empty else value)
    text = as_json(value)
    if text is None or len(text) > LONGEST_TEXT or not _has_text_keys(value):
        return None
    rows = min(20, max(2, text.count("\n") + 1))
    attrs = {"rows": rows, "cols": 60, "class": "vLargeTextField taskkit-json", "spellcheck": "false"}
    return MessageJSONField(required=False, initial=text, widget=forms.Textarea(attrs=attrs))


def as_json(value: Any) -> str | None:
    """Return ``value`` as JSON to be read and edited; None if it has no JSON."""
    if value is ABSENT:
        return ""
    try:
        text = str(kombu_json.dumps(value, indent=2, ensure_ascii=False))
        if not is_plain(text, str):
            text = str(kombu_json.dumps(value, indent=2))
    except (TypeError, ValueError, RecursionError):
        return None
    return text


def _has_text_keys(value: Any) -> bool:
    """Say whether JSON brings back what it is given: other formats have keys that are numbers."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _has_text_keys(item) for key, item in value.items())
    return not isinstance(value, (list, tuple)) or all(map(_has_text_keys, value))


def _bool_field(value: Any) -> forms.Field:
    choices = [("true", "true"), ("false", "false")]
    return ChoiceOfValuesField(
        required=False,
        choices=[("", "")] * (value is None) + choices,
        coerce=lambda text: text == "true",
        empty_value=ABSENT,
        initial=None if value is None else str(value).lower(),
    )


def _text_field(value: Any) -> forms.Field:
    is_short = len(value or "") <= _LONGEST_LINE and "\n" not in (value or "")
    widget = forms.TextInput(attrs={"class": "vTextField"}) if is_short else forms.Textarea(attrs={"rows": 4})
    return LineKeepingField(required=False, initial=value, widget=widget)


def _date_field(value: Any) -> forms.Field:
    widget = forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")
    return forms.DateField(required=False, initial=value, input_formats=["%Y-%m-%d"], widget=widget)


def _time_field(value: Any) -> forms.Field:
    text = value.isoformat() if value is not None else None
    return ISODateTimeField(required=False, initial=text, widget=forms.TextInput(attrs={"class": "vTextField"}))


def _numbers(kind: Any) -> Callable[[Any], forms.Field]:
    def make(value: Any) -> forms.Field:
        field: forms.Field = kind(required=False, initial=value)
        field.widget.attrs["step"] = "any"
        return field

    return make


_PLAIN: dict[Any, Callable[[Any], forms.Field]] = {
    int: lambda value: forms.IntegerField(required=False, initial=value),
    float: _numbers(forms.FloatField),
    Decimal: _numbers(forms.DecimalField),
    bool: _bool_field,
    str: _text_field,
    date: _date_field,
    datetime: _time_field,
    uuid.UUID: lambda value: forms.UUIDField(required=False, initial=value),
}


def _choices(hint: Any) -> list[tuple[str, Any]]:
    """Return names and values of what a parameter may be, where its hint names them."""
    if typing.get_origin(hint) is Literal:
        return [(str(value), value) for value in typing.get_args(hint)]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [(f"{member.name} ({member.value})", member.value) for member in hint]
    return []


def _choice_field(choices: list[tuple[str, Any]], value: Any) -> forms.Field | None:
    known = [choice for _name, choice in choices]
    numbers = [(str(number), name) for number, (name, _value) in enumerate(choices)]
    initial = next((str(number) for number, choice in enumerate(known) if same(choice, value)), None)
    if initial is None:
        # What it is now may be none of them; it stays so, unless one is chosen.
        numbers.insert(0, ("", "" if value in (ABSENT, None) else str(value)))
    return ChoiceOfValuesField(
        required=False,
        choices=numbers,
        coerce=lambda number: known[int(number)],
        empty_value=ABSENT,
        initial=initial,
    )
