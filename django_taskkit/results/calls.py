"""From the arguments of a call to where its value is."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from string import Formatter
from typing import Any, NamedTuple

from django_taskkit.call_keys import Binding, key_prefix, key_with
from django_taskkit.exceptions import ConfigurationError
from django_taskkit.results.options import Options, check_task
from django_taskkit.results.order import KIND, Order, run_key_of


class Call(NamedTuple):
    """One call of the task, as it was written."""

    key: str
    """Of the value in the cache."""
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    tags: tuple[str, ...]

    @property
    def run_key(self) -> str:
        """The key of the record of who makes the value."""
        return run_key_of(self.key)


class Calls:
    """Finds key and tags of calls. The task is not looked at before the first: a shared task has no app until then."""

    def __init__(self, task: Any, options: Options) -> None:
        self._task = task
        self._options = options
        self._binding: Binding | None = None
        self._prefix = ""

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """Return the call with these arguments.

        Raises:
            TypeError, ValueError: they don't fit the task, or can't be written as JSON.
            ConfigurationError: the options don't fit the task.
        """
        binding = self._binding or self.check()
        try:
            values = binding(args, kwargs)
        except TypeError as exc:
            raise TypeError(f"{self._task.name}: {exc}") from None
        vary_on = self._options.vary_on
        chosen = values if vary_on is None else {name: values.get(name) for name in vary_on}
        try:
            key = key_with(self._prefix, chosen)
        except (TypeError, ValueError, RecursionError) as exc:
            raise self._unwritable(chosen, exc) from exc
        return Call(key, args, kwargs, self._tags(chosen) if self._options.tags else ())

    def order(self, call: Call, task_id: str) -> Order:
        """Return what the worker has to know."""
        return Order(
            task_id=task_id,
            cache=self._options.cache,
            key=call.key,
            timeout=self._options.timeout,
            stale_for=self._options.stale_for,
            lock_timeout=self._options.lock_timeout,
            error_timeout=self._options.error_timeout,
            lease=min(self._options.lease, self._options.lock_timeout),
            tags=call.tags,
        )

    def check(self) -> Binding:
        """Compare the options with the task.

        Raises:
            ConfigurationError: they don't fit.
        """
        check_task(self._task)
        binding = Binding(inspect.signature(self._task.run))
        known, vary_on = binding.signature.parameters, self._options.vary_on
        for option, name in self._names():
            if name not in known and binding.takes_more is None:
                shown = ", ".join(map(repr, known)) or "none"
                raise ConfigurationError(
                    f"ResultCache of {self._task.name}: {option}: the task has no argument {name!r}; its arguments "
                    f"are {shown}"
                )
            if vary_on is not None and name not in vary_on:
                raise ConfigurationError(
                    f"ResultCache of {self._task.name}: {option}: {name!r} is not in vary_on; calls that share a value "
                    f"have to share its tags"
                )
        # The version comes first: a name may have colons, a version hasn't.
        self._prefix = key_prefix(KIND, f"v{self._options.version}:{self._task.name}")
        self._binding = binding
        return binding

    def _names(self) -> list[tuple[str, str]]:
        found = [("vary_on", name) for name in self._options.vary_on or ()]
        if not callable(self._options.tags):
            for tag in self._options.tags:
                names = [field for _text, field, _spec, _conversion in Formatter().parse(tag) if field is not None]
                found += [("tags", name.partition(".")[0].partition("[")[0]) for name in names]
        return found

    def _tags(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        tags = self._options.tags
        made = tags(**values) if callable(tags) else [tag.format(**values) for tag in tags]
        made = (made,) if isinstance(made, str) else tuple(made)
        if not all(isinstance(tag, str) for tag in made):
            raise ConfigurationError(f"ResultCache of {self._task.name}: tags returned {made!r:.80}; return texts")
        return tuple(dict.fromkeys(made))

    def _unwritable(self, chosen: Mapping[str, Any], exc: Exception) -> Exception:
        for name, value in chosen.items():
            try:
                key_with("", value)
            except (TypeError, ValueError, RecursionError):
                return TypeError(
                    f"{self._task.name}: {name}={value!r:.80} can't be part of a key, nor travel to a worker: {exc}; "
                    f"give what JSON can take, an id instead of an object"
                )
        return TypeError(f"{self._task.name}: the arguments can't be written as JSON: {exc}")
