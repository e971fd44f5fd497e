"""The models, where Django's app registry looks for them."""

from django_taskkit.dlq.models import DeadLetter, DeadLetterEvent

__all__ = ["DeadLetter", "DeadLetterEvent"]
