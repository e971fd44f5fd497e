"""The ids of task and web request as attributes of log records, for any formatter."""

from __future__ import annotations

import logging

from django_taskkit.observability.logs.context import KEYS, facts_of

FACTS = "taskkit_facts"
"""The attribute with all that is known, as a dict, so that a queue's listener in another thread need not ask."""

ADDED = "taskkit_added"
"""The attribute that names what the filter has put on the record."""


class TaskContextFilter(logging.Filter):
    """Put ``task_id``, ``request_id`` and the others of ``KEYS`` on every record.

    It belongs to a handler: what is on a logger sees only the records of that logger, not those of its children. It
    lets every record pass, and leaves what ``extra`` has put there.

    Args:
        missing: what stands where there is no task or no web request.
    """

    def __init__(self, name: str = "", missing: str = "-") -> None:
        super().__init__(name)
        self.missing = missing

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            facts = facts_of(record)
        except Exception:  # a line without ids is better than none
            facts = {}
        added = tuple(key for key in KEYS if not hasattr(record, key))
        for key in added:
            setattr(record, key, facts.get(key, self.missing))
        if not hasattr(record, FACTS):
            setattr(record, FACTS, facts)
            setattr(record, ADDED, added)
        return True
