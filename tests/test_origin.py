"""The queue of a message is known, or said not to be."""

import pytest
from kombu import Exchange, Queue

from django_taskkit.origin import origin_of

SHOP = Exchange("shop", type="topic")
DIRECT = Exchange("direct", type="direct")


def origin(station, exchange, routing_key, queue=None):
    return origin_of(station.app, {"exchange": exchange, "routing_key": routing_key, "queue": queue})


@pytest.fixture
def queues(station):
    def declare(*queues):
        station.app.conf.task_queues = queues

    return declare


def test_the_default_exchange_names_the_queue(station):
    assert origin(station, "", "mails") == ("", "mails", "mails")


def test_the_queue_is_found_by_exchange_and_routing_key(station, queues):
    queues(Queue("mails", SHOP, routing_key="mail.out"), Queue("other", DIRECT, routing_key="mail.out"))

    assert origin(station, "shop", "mail.out") == ("shop", "mail.out", "mails")


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("order.*", "order.created", True),
        ("order.*", "order.created.twice", False),
        ("order.*", "order", False),
        ("order.#", "order.created.twice", True),
        ("order.#", "order", True),
        ("#", "anything.at.all", True),
        ("*.created", "order.created", True),
        ("a.b", "aXb", False),
    ],
)
def test_the_queue_is_found_by_the_pattern_of_a_topic(station, queues, pattern, key, matches):
    queues(Queue("orders", SHOP, routing_key=pattern))

    assert origin(station, "shop", key)[2] == ("orders" if matches else "")


def test_the_queue_is_unknown_where_it_may_be_one_of_two(station, queues):
    queues(Queue("mails", SHOP, routing_key="order"), Queue("audit", SHOP, routing_key="order"))

    assert origin(station, "shop", "order") == ("shop", "order", "")


def test_what_the_worker_says_counts(station, queues):
    queues(Queue("mails", SHOP, routing_key="order"), Queue("audit", SHOP, routing_key="order"))

    assert origin(station, "shop", "order", queue="audit")[2] == "audit"


def test_every_queue_of_a_fanout_gets_every_message(station, queues):
    queues(Queue("news", Exchange("news", type="fanout")))

    assert origin(station, "news", "whatever")[2] == "news"


@pytest.mark.parametrize("prefix", ["", "eu_"])
def test_the_detour_of_a_delayed_message_is_taken_out(station, queues, prefix):
    queues(Queue("mails", SHOP, routing_key="mail.out"))

    assert origin(station, f"{prefix}celery_delayed_0", "0." * 27 + "1.mail.out") == ("shop", "mail.out", "mails")


def test_the_detour_of_a_message_to_an_unknown_queue_ends_at_that_queue(station):
    assert origin(station, "celery_delayed_27", "0." * 28 + "unknown") == ("", "unknown", "unknown")
