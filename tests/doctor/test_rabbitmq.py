import pytest
from kombu import Queue

from django_taskkit.doctor.rabbitmq import arguments, consumer_timeout, rabbitmq, version


@pytest.fixture
def late_task(add_task):
    return lambda **options: add_task("shop.late", acks_late=True, **options)


def queue(**arguments):
    return Queue("doctor-default", queue_arguments=arguments)


def test_a_task_that_fits_into_rabbitmqs_default_is_fine(site, late_task):
    late_task(time_limit=600)

    found = consumer_timeout(site, [queue()])

    assert found.level.value == "ok"
    assert "shop.late" in found.text


def test_whether_this_rabbitmq_allows_more_than_its_default_is_unknown(site, late_task):
    late_task(time_limit=7200)

    found = consumer_timeout(site, [queue()])

    assert (found.level.value, "7200" in found.text) == ("unknown", True)
    assert "consumer_timeout" in found.remedy


@pytest.mark.parametrize(("milliseconds", "level"), [(8_000_000, "ok"), (3_600_000, "error")])
def test_what_the_queue_itself_allows_is_compared(site, late_task, milliseconds, level):
    late_task(time_limit=7200)

    assert consumer_timeout(site, [queue(**{"x-consumer-timeout": milliseconds})]).level.value == level


def test_what_another_queue_allows_does_not_help(site, late_task):
    late_task(time_limit=7200)

    other = Queue("other", queue_arguments={"x-consumer-timeout": 8_000_000})

    assert consumer_timeout(site, [other, queue()]).level.value == "unknown"


def test_delays_that_workers_hold_count_as_well(site, settings):
    settings.TASKKIT = {"LONG_DELAY": 5000}

    assert "LONG_DELAY" in consumer_timeout(site, []).text


def test_without_late_tasks_the_timeout_matters_little(site):
    assert consumer_timeout(site, []).level.value == "ok"


def test_a_queue_that_differs_is_an_error_in_rabbitmqs_words():
    said = "Queue.declare: (406) PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q': received 'quorum'"

    [found] = arguments([("the queue 'q'", 406, said)], 1)

    assert found.level.value == "error"
    assert "inequivalent arg 'x-queue-type'" in found.text
    assert "(406)" not in found.text


def test_a_queue_that_may_not_be_declared_is_unknown():
    [found] = arguments([("the queue 'q'", 403, "ACCESS_REFUSED")], 1)

    assert found.level.value == "unknown"


def test_a_broker_that_says_no_version_is_unknown():
    assert version({}).level.value == "unknown"
    assert "4.1.2" in version({"product": "RabbitMQ", "version": "4.1.2"}).text


def test_on_another_broker_there_is_nothing_to_say_of_rabbitmq(site):
    assert list(rabbitmq(site)) == []
