"""Messages that wait in the database to be published: the hook that puts them there, and the relay that sends them."""

from __future__ import annotations

from typing import Final

UNTIL_DUE: Final = "until_due"
"""The value of the option ``outbox`` for a message that waits there for its ETA, however short that is, and not in a
worker."""
