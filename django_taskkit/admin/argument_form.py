"""A form for the arguments of a call, made of the task's signature and type hints."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from django import forms
from django.forms import BoundField
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_taskkit import conf
from django_taskkit.admin.argument_fields import LONGEST_TEXT, MessageJSONField, as_json, field_for
from django_taskkit.dlq.calls import gathered, misfit
from django_taskkit.dlq.editing import ABSENT, Call
from django_taskkit.dlq.hiding import Hidden, SecretError
from django_taskkit.dlq.hints import described, without_none
from django_taskkit.dlq.privacy import HIDDEN, redacted, tells_secret
from django_taskkit.dlq.text import shortened, storable

GIVEN, NONE, DEFAULT, KEPT = "given", "none", "default", "kept"


@dataclass
class Row:
    """One argument on the page."""

    name: str
    label: str
    help: str
    shown: str = ""
    """What it is, where it can't be edited."""
    how: BoundField | None = None
    field: BoundField | None = None


class ArgumentsForm(forms.Form):
    """One field for each parameter of a task, and one to say what else it may be: left out, None, or as it is.

    Args:
        data: what was posted, or None.
        call: the call to be edited.
        sees_secrets: whether what is redacted may be edited.
    """

    note = forms.CharField(
        label=gettext_lazy("Note"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=gettext_lazy("Kept in the history, beside what was changed."),
    )

    def __init__(self, data: Any, call: Call, *, sees_secrets: bool) -> None:
        super().__init__(data)
        self.call = call
        self._sees_secrets = sees_secrets
        self._redact = conf.current().redact
        self._values = call.arguments.values
        self._hidden: dict[str, Hidden] = {}
        self._open: dict[str, list[str]] = {}
        """Parameters that can be edited, with what each may be."""
        note = self.fields.pop("note")
        self._numbers = {name: number for number, name in enumerate(call.signature.parameters)}
        for parameter in call.signature.parameters.values():
            if call.may_edit(parameter.name):
                self._add(parameter)
        self.fields["note"] = note

    @property
    def rows(self) -> list[Row]:
        rows = []
        for name, parameter in self.call.signature.parameters.items():
            row = Row(name=name, label=f"{_SEVERAL.get(parameter.kind, '')}{name}", help=self._help(parameter))
            if name in self._open:
                row.field = self[self._key(name)]
                row.how = self[self._key(name, "how")] if self._key(name, "how") in self.fields else None
            else:
                row.shown = self._shown(name)
            rows.append(row)
        return rows

    @property
    def surplus(self) -> dict[str, str]:
        """What fits no parameter, and is left out when this is saved."""
        found = redacted(dict(self.call.arguments.surplus), self._redact)
        return {shortened(storable(name), 500): _text(value) for name, value in found.items()}

    def clean(self) -> dict[str, Any]:
        """Put the call together, and see that the task takes it."""
        cleaned = super().clean() or self.cleaned_data
        values = {name: value for name, value in self._values.items() if name not in self._open}
        for name in self._open:
            if self._key(name) in self.errors or self._key(name, "how") in self.errors:
                continue
            try:
                value = self._value_of(name, cleaned)
            except (forms.ValidationError, SecretError) as exc:
                self.add_error(self._key(name), exc if isinstance(exc, forms.ValidationError) else str(exc))
                continue
            if value is not ABSENT:
                values[name] = value
        if self.errors:
            return cleaned
        args, kwargs = gathered(self.call.signature, values, self.call.args, self.call.kwargs)
        if why := misfit(self.call.signature, args, kwargs):
            raise forms.ValidationError(_("The arguments don't fit the task: %(why)s.") % {"why": why})
        return {**cleaned, "args": args, "kwargs": kwargs}

    def _add(self, parameter: inspect.Parameter) -> None:
        name, hint = parameter.name, self.call.hints.get(parameter.name, Any)
        value = self._values.get(name, ABSENT)
        is_secret = tells_secret(name, self._redact)
        if is_secret and not self._sees_secrets:
            return
        field = self._field(parameter, hint, ABSENT if is_secret else value)
        if field is None:
            return
        may_be_none = without_none(hint)[1] or parameter.default is None or value is None
        modes = [
            *([KEPT] if is_secret and value is not ABSENT else []),
            GIVEN,
            *([NONE] if may_be_none and not isinstance(field, MessageJSONField) else []),
            *([DEFAULT] if parameter.default is not parameter.empty else []),
        ]
        self._open[name] = modes
        self.fields[self._key(name)] = field
        if len(modes) > 1:
            initial = KEPT if KEPT in modes else NONE if value is None and NONE in modes else GIVEN
            if value is ABSENT and DEFAULT in modes:
                initial = DEFAULT
            labels = {
                GIVEN: _("this value:"),
                NONE: "None",
                DEFAULT: _("left out"),
                KEPT: _("as it is: %s") % HIDDEN,
            }
            self.fields[self._key(name, "how")] = forms.ChoiceField(
                choices=[(mode, labels[mode]) for mode in modes],
                initial=initial,
                required=False,
                widget=forms.Select(attrs={"aria-label": _("What %s is to be") % name}),
            )

    def _field(self, parameter: inspect.Parameter, hint: Any, value: Any) -> forms.Field | None:
        several = parameter.kind in _SEVERAL
        if value is ABSENT and several:
            return field_for(hint, [] if parameter.kind is parameter.VAR_POSITIONAL else {}, as_text=True)
        if value is not ABSENT and value is not None:
            self._hidden[parameter.name] = hidden = Hidden(value, self._redact)
            if hidden.hides:
                return field_for(hint, hidden.shown, as_text=True)
        return field_for(hint, value, as_text=several)

    def _value_of(self, name: str, cleaned: dict[str, Any]) -> Any:
        key, old = self._key(name), self._values.get(name, ABSENT)
        how = cleaned.get(self._key(name, "how")) or self._open[name][0]
        value, changed = cleaned[key], key in self.changed_data
        is_json = isinstance(self.fields[key], MessageJSONField)
        is_typed = changed and value is not ABSENT
        if is_typed and self._key(name, "how") not in self.changed_data:
            how = GIVEN  # who types a value need not say that it is to be one
        if how != GIVEN:
            if is_typed:
                raise forms.ValidationError(_("A value is given; choose “this value”, or clear the field."))
            return {KEPT: old, NONE: None, DEFAULT: ABSENT}[how]
        if not changed and name in self._hidden:
            return old
        if value is ABSENT or (value is None and not is_json):
            raise forms.ValidationError(_("This field is required."))
        if not tells_secret(name, self._redact):
            hidden = self._hidden.get(name) or Hidden(None, self._redact)
            value = hidden.restored(value, may_change=self._sees_secrets)
        return self._checked(name, value)

    def _checked(self, name: str, value: Any) -> Any:
        if why := self.call.complaint(name, value):
            raise forms.ValidationError(why)
        return value

    def _key(self, name: str, kind: str = "argument") -> str:
        # By number: a parameter may be called like anything else on the page.
        return f"{kind}-{self._numbers[name]}"

    def _help(self, parameter: inspect.Parameter) -> str:
        field = self.fields.get(self._key(parameter.name))
        parts = ["JSON"] if isinstance(field, MessageJSONField) else []
        if parameter.name in self.call.hints:
            parts.append(described(self.call.hints[parameter.name]))
        if parameter.default is not parameter.empty:
            is_secret = tells_secret(parameter.name, self._redact)
            shown = HIDDEN if is_secret and parameter.default else repr(parameter.default)
            parts.append(_("%s if left out") % shortened(shown, 200))
        return ", ".join(parts)

    def _shown(self, name: str) -> str:
        if name not in self._values:
            return _("left out")
        value = self._values[name]
        if tells_secret(name, self._redact):
            return HIDDEN
        return _text(redacted(value, self._redact))


_SEVERAL: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
"""Kinds of parameters that stand for several values, and what is written before their names."""


def _text(value: Any) -> str:
    return shortened(storable(as_json(value) or repr(value)), LONGEST_TEXT // 10)
