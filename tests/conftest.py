"""Fixtures for tests without services: Celery's real message path over kombu's in-memory broker."""

import itertools

import pytest
from celery import Celery, _state, signals
from celery.app.trace import trace_task_ret
from celery.contrib.django.task import DjangoTask
from celery.worker.request import Request
from celery.worker.state import task_reserved

_names = itertools.count()


class OwnTasks(Celery):
    """An app that keeps its tasks to itself; Celery gives each ``@app.task`` to all later apps as well."""

    def task(self, *args, **options):
        return super().task(*args, **{"shared": False, **options})


class Step:
    """What became of one message that was run."""

    def __init__(self, message, request, failed, result):
        self.message = message
        self.request = request
        self.failed = failed
        self.result = result


class Station:
    """A Celery app with a queue of its own, and the worker's message path one message at a time.

    The message is really published and received, goes through Celery's own request and tracer, and is
    acknowledged as Celery would; only the loop around it is missing.
    """

    def __init__(self, app):
        self.app = app
        self.queue = app.conf.task_default_queue
        self._connection = app.connection_for_read()
        self._channel = self._connection.channel()

    def take(self):
        queue = self.app.amqp.queues[self.queue](self._channel)
        queue.declare()
        return queue.get(accept={"application/json", "application/x-python-serialize"})

    def waiting(self):
        return self._channel._size(self.queue)

    def run_next(self):
        """Run the next message of the queue; None if there is none."""
        message = self.take()
        return None if message is None else self.run(message)

    def run(self, message, headers=None, **options):
        request = Request(
            message,
            app=self.app,
            task=self.app.tasks[(headers or message.headers)["task"]],
            headers=headers,
            on_ack=message.ack_log_error,
            on_reject=message.reject_log_error,
            connection_errors=(OSError,),
            **options,
        )
        signals.task_received.send(sender=None, request=request)
        task_reserved(request)
        failed, result, runtime = trace_task_ret(
            request.type,
            request.id,
            request.request_dict,
            request.body,
            request.content_type,
            request.content_encoding,
            app=self.app,
        )
        request.on_success((failed, result, runtime))
        return Step(message, request, failed, result)

    def run_all(self, limit=50):
        """Run until the queue is empty; return how many messages that took."""
        for count in range(limit):
            if self.run_next() is None:
                return count
        raise AssertionError(f"the queue still has messages after {limit} runs")

    def close(self):
        self._connection.release()


@pytest.fixture
def station():
    """A fresh Celery app on the in-memory broker, as the current app, with its own queue."""
    before, default = _state._get_current_app(), _state.default_app
    app = OwnTasks("station", set_as_current=True, task_cls=DjangoTask)
    app.conf.update(
        broker_url="memory://",
        result_backend="cache+memory://",
        task_default_queue=f"station-{next(_names)}",
        accept_content=["json", "pickle"],
        task_publish_retry=False,
    )
    app.set_default()  # for other threads, such as a live server's
    station = Station(app)
    yield station
    station.close()
    _state._set_current_app(before)
    _state.set_default_app(default)
