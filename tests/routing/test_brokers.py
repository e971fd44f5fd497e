import pytest

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing.brokers import KINDS, NUMBERS, kind_of
from django_taskkit.routing.lane import PRIORITIES


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://localhost:6379/0", "redis"),
        ("rediss://:secret@cache/1", "redis"),
        ("sentinel://one:26379;sentinel://two:26379", "redis"),
        ("redis+socket:///run/redis.sock", "redis"),
        ("amqp://", "rabbitmq"),
        ("amqps://guest@localhost/shop", "rabbitmq"),
        ("pyamqp://localhost//", "rabbitmq"),
        (["AMQP://one//", "amqp://two//"], "rabbitmq"),
        ("sqs://", "sqs"),
        ("SQS://key:secret@", "sqs"),
        ("filesystem://", "plain"),
        ("memory://", "plain"),
        ("sqla+postgresql://localhost/db", "plain"),
    ],
)
def test_a_url_says_which_broker_it_is(url, kind):
    assert kind_of(url) == kind


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("kafka://key:hunter2@host", "'kafka://...') is a broker that lanes() has no settings for. It knows redis://"),
        ("reddis://:hunter2@host", "Did you mean redis://?"),
        ("localhost:hunter2", "has no '://' in it"),
        ("", "lanes(broker='') is no broker's URL"),
        (None, "lanes(broker=None) is no broker's URL"),
        ([], "lanes(broker=[]) is no broker's URL"),
    ],
)
def test_any_other_is_refused_without_its_password(url, sentence):
    with pytest.raises(ConfigurationError) as refused:
        kind_of(url)

    assert sentence in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_celery_knows_each_of_them():
    from kombu.transport import TRANSPORT_ALIASES

    # "socket" is of django_taskkit.transports.redis; what stands before a plus is the transport.
    known = {scheme.partition("+")[0] for scheme in KINDS} - {"socket"}
    assert known <= set(TRANSPORT_ALIASES)


def test_redis_counts_priorities_down_and_the_others_up():
    assert [NUMBERS["redis"][name] for name in PRIORITIES] == [0, 3, 6, 9]
    assert [NUMBERS["rabbitmq"][name] for name in PRIORITIES] == [9, 6, 3, 0]
    # Which is the order of the lists that kombu reads, each of them another one.
    from kombu.transport.redis import PRIORITY_STEPS

    assert sorted(NUMBERS["redis"].values()) == PRIORITY_STEPS


def test_on_rabbitmq_4_the_two_urgent_ones_are_what_quorum_queues_take_for_urgent():
    assert [NUMBERS["rabbitmq"][name] > 4 for name in PRIORITIES] == [True, True, False, False]
