"""Which broker a URL means, and what its numbers for priorities are."""

from __future__ import annotations

import difflib
from types import MappingProxyType

from django_taskkit.exceptions import ConfigurationError

REDIS, RABBITMQ, SQS, PLAIN = "redis", "rabbitmq", "sqs", "plain"

KINDS = MappingProxyType(
    {
        "redis": REDIS,
        "rediss": REDIS,
        "redis+socket": REDIS,
        "socket": REDIS,
        "sentinel": REDIS,
        "amqp": RABBITMQ,
        "amqps": RABBITMQ,
        "pyamqp": RABBITMQ,
        "sqs": SQS,
        "filesystem": PLAIN,
        "memory": PLAIN,
        "sqla": PLAIN,
        "sqlalchemy": PLAIN,
    }
)
"""How a broker's URL begins. A plain one has queues, and nothing that they could be told."""

NUMBERS = MappingProxyType(
    {
        # kombu has a list for each of these steps, and reads them from the first on.
        REDIS: MappingProxyType({"critical": 0, "high": 3, "default": 6, "low": 9}),
        # Classic queues have as many as x-max-priority says. From release 4.0 on quorum queues tell numbers
        # above 4 from the others.
        RABBITMQ: MappingProxyType({"critical": 9, "high": 6, "default": 3, "low": 0}),
        # Our filesystem transport reads them as RabbitMQ does; the others ignore them.
        PLAIN: MappingProxyType({"critical": 9, "high": 6, "default": 3, "low": 0}),
        SQS: MappingProxyType({}),
    }
)
"""The number for each priority's name. Celery hands it on as it is, and the brokers read it in opposite directions."""


def kind_of(url: object) -> str:
    """Return ``"redis"``, ``"rabbitmq"``, ``"sqs"`` or ``"plain"`` for a broker's URL; of several the first decides.

    Raises:
        ConfigurationError: it is no URL, or of a broker that is not known here. The message never holds a password.
    """
    first = url.split(";")[0] if isinstance(url, str) else url[0] if isinstance(url, (list, tuple)) and url else url
    if not isinstance(first, str) or not first:
        raise ConfigurationError(
            f"lanes(broker={first!r}) is no broker's URL; give the one of CELERY_BROKER_URL, such as "
            "'redis://localhost:6379/0'"
        )
    scheme, found, _ = first.strip().partition("://")
    scheme = scheme.lower()
    if not found:
        # Celery takes a bare word for a transport, and a bare host for a RabbitMQ; what it is can't be shown.
        raise ConfigurationError(
            "lanes(broker=...) has no '://' in it; give the URL of CELERY_BROKER_URL, such as 'amqp://localhost//'"
        )
    name = scheme if scheme in KINDS else scheme.partition("+")[0]
    if name in KINDS:
        return KINDS[name]
    near = difflib.get_close_matches(scheme, KINDS, n=1)
    guess = f"Did you mean {near[0]}://? " if near else ""
    raise ConfigurationError(
        f"lanes(broker='{scheme}://...') is a broker that lanes() has no settings for. {guess}It knows "
        f"{', '.join(f'{known}://' for known in KINDS)}; for another, write task_queues and task_routes yourself"
    )
