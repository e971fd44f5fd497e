"""A dead letter knows which of a worker's queues it was read from."""

import gc
from types import SimpleNamespace

import pytest
from kombu import Consumer, Exchange, Queue

from django_taskkit.worker import this_consumer
from django_taskkit.worker.this_consumer import note_consumer, queue_of


class Worker:
    """What is asked of Celery's consumer: the one of kombu's that reads its tasks."""

    def __init__(self, task_consumer=None):
        self.task_consumer = task_consumer


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.setattr(this_consumer, "_consumer", None)


@pytest.fixture
def worker(station):
    """A worker that reads two queues of one exchange, by kombu's own consumer."""
    news = Exchange("news", type="topic")
    channel = station._connection.channel()
    reading = Consumer(
        channel,
        [Queue("mail", news, routing_key="news.#"), Queue("paper", news, routing_key="news.*")],
        callbacks=[print],
    )
    reading.consume()
    made = Worker(reading)
    note_consumer(made)
    yield made
    reading.cancel()


def message(**delivery):
    return SimpleNamespace(delivery_info=delivery)


def test_the_tag_of_the_consumer_tells_the_queue(worker):
    tags = worker.task_consumer._active_tags

    assert set(tags) == {"mail", "paper"}
    for name in ("mail", "paper"):
        assert queue_of(message(exchange="news", routing_key="news.today", consumer_tag=tags[name])) == name


def test_the_default_exchange_names_it_itself(worker):
    """So that nothing has to be looked up for nearly all messages."""
    tag = worker.task_consumer._active_tags["mail"]

    assert queue_of(message(exchange="", routing_key="celery", consumer_tag=tag)) is None


@pytest.mark.parametrize("delivery", [None, {}, {"exchange": "news"}, {"exchange": "news", "consumer_tag": "another"}])
def test_it_is_unknown_where_nobody_says(worker, delivery):
    assert queue_of(SimpleNamespace(delivery_info=delivery)) is None


@pytest.mark.parametrize("task_consumer", [None, SimpleNamespace(), SimpleNamespace(_active_tags=None)])
def test_a_consumer_that_reads_nothing_yet_knows_none(task_consumer):
    made = Worker(task_consumer)
    note_consumer(made)

    assert queue_of(message(exchange="news", consumer_tag="1")) is None


def test_without_a_worker_none_is_known():
    assert queue_of(message(exchange="news", consumer_tag="1")) is None


def test_a_worker_that_is_gone_is_not_kept_alive():
    note_consumer(Worker())
    gc.collect()

    assert this_consumer._consumer() is None
    assert queue_of(message(exchange="news", consumer_tag="1")) is None
