"""All probes, in the order in which they are asked and shown."""

from __future__ import annotations

from django_taskkit.doctor import (
    beat,
    broker,
    clocks,
    modules,
    queues,
    rabbitmq,
    redis,
    relay,
    results,
    settings,
    store,
    tables,
    workers,
)
from django_taskkit.doctor.running import Probe, Where

MODULES = Probe(
    name="task-modules",
    asks="whether the project's tasks can be imported",
    look=modules.modules,
    where=Where.HERE,
)

PROBES = (
    Probe(
        name="settings",
        asks="the static checks, those for deployments included",
        look=settings.settings,
        where=Where.HERE,
    ),
    MODULES,
    Probe(name="database", asks="whether it answers", look=tables.database, where=Where.HERE),
    Probe(name="migrations", asks="whether all are applied", look=tables.migrations, where=Where.DATABASE),
    Probe(name="broker", asks="whether it takes a message and gives it back", look=broker.broker),
    Probe(name="redis", asks="eviction, persistence and memory of the broker's Redis", look=redis.redis),
    Probe(name="rabbitmq", asks="version, queue arguments and consumer_timeout of RabbitMQ", look=rabbitmq.rabbitmq),
    Probe(name="queues", asks="what waits, and whether somebody reads it", look=queues.queues),
    Probe(name="workers", asks="who answers, their versions, and the tasks they know", look=workers.workers),
    Probe(name="clocks", asks="the clocks of workers and Redis", look=clocks.clocks),
    Probe(name="database-clock", asks="the database's clock", look=clocks.database_clock, where=Where.DATABASE),
    Probe(name="beat", asks="whether one is alive, and alone", look=beat.beat, where=Where.DATABASE),
    Probe(name="relay", asks="whether one is alive", look=relay.relay, where=Where.DATABASE),
    Probe(name="outbox", asks="what waits there for too long", look=relay.outbox, where=Where.DATABASE),
    Probe(name="spool", asks="dead letters that have not reached the database", look=relay.spooled),
    Probe(
        name="dead-letters",
        asks="whether too many wait, or for too long",
        look=tables.dead_letters,
        where=Where.DATABASE,
    ),
    Probe(name="results", asks="the result backend, and when results expire", look=results.results),
    Probe(name="store", asks="TASKKIT['SHARED_STORE']", look=store.store),
)
