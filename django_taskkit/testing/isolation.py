"""Cut a Celery app off from its broker and its result backend, and put it back as it was."""

from __future__ import annotations

import inspect
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from celery import Celery, _state
from celery.worker import state as worker_state
from kombu.pools import ProducerPool

from django_taskkit.dlq import recorder, spool, spool_files
from django_taskkit.outbox import brokers
from django_taskkit.outbox.presence import watch
from django_taskkit.testing.broker import HOST, Broker
from django_taskkit.testing.results import MemoryBackend
from django_taskkit.testing.shared import own_store
from django_taskkit.worker import delivery_limit

CONNECTIONS = 10

AT_ONCE = {"max_retries": 0, "interval_start": 0, "interval_step": 0, "interval_max": 0}
"""How Celery tries again to publish: not at all, as each try but the first waits."""

_MISSING = object()


@contextmanager
def isolated(app: Celery, broker: Broker, on_sent: Callable[..., Any]) -> Iterator[None]:
    """Within the block, ``app`` publishes to ``broker`` and stores results in memory.

    Args:
        app: the project's app.
        broker: what takes its messages.
        on_sent: called in the place of Celery's function that publishes a task, with that function and its arguments.
    """
    with ExitStack() as stack:
        stack.enter_context(_current(app))
        stack.enter_context(_own_settings(app))
        stack.enter_context(_own_connections(app, broker, on_sent))
        stack.enter_context(_own_results(app))
        stack.enter_context(_own_traces(app))
        stack.enter_context(_own_spool())
        stack.enter_context(own_store())
        stack.enter_context(_no_memory())
        yield


def forget_outages() -> None:
    """Have everybody try database and broker again who would spare them for some seconds."""
    recorder.database_pause.end()
    spool.broker_pause.end()
    delivery_limit.database_pause.end()


@contextmanager
def _current(app: Celery) -> Iterator[None]:
    """Make ``app`` the one whose tasks ``@shared_task`` stands for."""
    state: Any = _state
    current, default = state._tls.current_app, state.default_app
    app.set_current()
    app.set_default()
    try:
        yield
    finally:
        state._set_current_app(current)
        state.set_default_app(default)


@contextmanager
def _own_settings(app: Any) -> Iterator[None]:
    app.conf.get("broker_url")  # reads the settings, if nobody has so far
    conf = app._conf
    own = {
        "broker_url": HOST,
        "broker_read_url": None,
        "broker_write_url": None,
        "broker_transport": None,
        "broker_transport_options": {},
        "task_always_eager": False,
        "task_publish_retry_policy": AT_ONCE,
    }
    conf.maps.insert(0, own)
    brokers._addresses_of.cache_clear()
    try:
        yield
    finally:
        conf.maps[:] = [mapping for mapping in conf.maps if mapping is not own]
        brokers._addresses_of.cache_clear()


@contextmanager
def _own_connections(app: Any, broker: Broker, on_sent: Callable[..., Any]) -> Iterator[None]:
    amqp = app.amqp
    pool, attributes, queues = app._pool, dict(amqp.__dict__), set(amqp.queues)
    amqp.__dict__.pop("_event_dispatcher", None)
    amqp.Connection = broker.connect
    # Not kombu's pools, which keep one for every broker that they have ever seen.
    app._pool = broker.connect().Pool(CONNECTIONS)
    amqp._producer_pool = ProducerPool(app._pool, limit=CONNECTIONS)
    renew_sender(app, on_sent)
    try:
        yield
    finally:
        amqp._producer_pool.force_close_all()
        app._pool.force_close_all()
        app._pool = pool
        for name in set(amqp.queues) - queues:
            dict.pop(amqp.queues, name, None)
        amqp.__dict__.clear()
        amqp.__dict__.update(attributes)


def renew_sender(app: Any, on_sent: Callable[..., Any]) -> None:
    """Publish by a function that knows of no outage."""
    send = app.amqp._create_task_sender()

    def send_task_message(producer: Any, name: str, message: Any, *args: Any, **options: Any) -> Any:
        options["retry_policy"] = None
        return on_sent(send, producer, name, message, *args, **options)

    app.amqp.send_task_message = send_task_message


@contextmanager
def _own_results(app: Any) -> Iterator[None]:
    cached, local = app._backend_cache, getattr(app._local, "backend", None)
    app._backend_cache = memory = MemoryBackend(app=app)
    with ExitStack() as stack:
        for task in app.tasks.values():
            # A task may have a backend of its own: an attribute of its class, or what was assigned to it.
            is_property = isinstance(inspect.getattr_static(task, "backend", None), property)
            name = "_backend" if is_property else "backend"
            if not is_property or getattr(task, name, None) is not None:
                stack.callback(_restore, task, name, vars(task).get(name, _MISSING))
                vars(task)[name] = memory
        try:
            yield
        finally:
            app._backend_cache = cached
            if local is not None:
                app._local.backend = local


def _restore(owner: Any, name: str, value: Any) -> None:
    if value is _MISSING:
        vars(owner).pop(name, None)
    else:
        vars(owner)[name] = value


@contextmanager
def _own_traces(app: Any) -> Iterator[None]:
    """Have Celery build its tracers anew: they keep the result backend that there was at a task's first run."""
    before = {task: vars(task).get("__trace__", _MISSING) for task in app.tasks.values()}
    for task in before:
        task.__trace__ = None
    try:
        yield
    finally:
        for task in app.tasks.values():
            _restore(task, "__trace__", before.get(task, _MISSING))


@contextmanager
def _own_spool() -> Iterator[None]:
    """Keep this machine's spooled files out of the test, and the test's out of the machine.

    Not by ``TASKKIT["SPOOL_DIR"]``: a test may override that setting itself.
    """
    folder = Path(tempfile.gettempdir(), f"taskkit-test-{uuid.uuid4().hex}")
    module: Any = spool_files
    path = module.path
    module.path = lambda: folder
    try:
        yield
    finally:
        module.path = path
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _no_memory() -> Iterator[None]:
    """Begin and end without what Celery and django_taskkit remember of earlier messages and outages."""
    alive, until = watch._alive, watch._known_until
    state: Any = _state
    joins = state.task_join_will_block()
    forget_outages()
    # Whoever runs the messages is the relay as well.
    watch._alive, watch._known_until = True, float("inf")
    try:
        yield
    finally:
        watch._alive, watch._known_until = alive, until
        state._set_task_join_will_block(joins)
        worker_state.reset_state()
        forget_outages()
