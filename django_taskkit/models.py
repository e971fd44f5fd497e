"""The models, where Django's app registry looks for them."""

from django_taskkit.backends.model import DjangoTaskResult
from django_taskkit.beat.model import BeatLease, BeatRun
from django_taskkit.dlq.models import DeadLetter, DeadLetterEvent, Redelivery
from django_taskkit.dlq.redrive.model import Redrive, RedriveMember
from django_taskkit.outbox.model import OutboxLease, OutboxMessage, RelayHeartbeat

__all__ = [
    "BeatLease",
    "BeatRun",
    "DeadLetter",
    "DeadLetterEvent",
    "DjangoTaskResult",
    "OutboxLease",
    "OutboxMessage",
    "Redelivery",
    "Redrive",
    "RedriveMember",
    "RelayHeartbeat",
]
