import pytest
from kombu.transport import memory

from django_taskkit.doctor import queues as probe
from django_taskkit.doctor.broker import broker


class WithoutFanout(memory.Transport):
    implements = memory.Transport.implements.extend(exchange_type=frozenset(["direct"]))


@pytest.fixture
def send(app):
    def send(queue):
        with app.connection_for_write() as connection:
            connection.Producer(auto_declare=False).publish("{}", exchange="", routing_key=queue)

    yield send
    for queue in memory.Channel.queues.values():
        queue.queue.clear()


def test_messages_without_a_reader_are_an_error_and_an_empty_queue_a_warning(app, site, send, levels):
    assert levels(probe.queues(site)) == {"queues": "ok", "queue-unread": "warning"}

    send("doctor-default")

    found = list(probe.queues(type(site)(app)))
    assert [finding.level.value for finding in found] == ["ok", "error"]
    assert "1 in 'doctor-default'" in found[0].text


def test_a_queue_that_only_a_route_names_is_looked_at_too(app, site, add_task):
    app.conf.task_routes = {"shop.*": "typo"}
    add_task("shop.sell")

    assert set(site.queue_names()) == {"doctor-default", "typo"}


def test_queues_that_the_relay_reads_need_no_worker(app, site, settings):
    settings.TASKKIT = {"SPOOL_QUEUE": "spool", "INTAKE_QUEUES": ["dead"]}
    for name in ("spool", "dead"):
        app.amqp.queues.add(name)

    assert site.queue_names() == ["doctor-default"]


def test_where_workers_cannot_be_asked_it_is_unknown_who_reads(app, site, levels):
    app.conf.broker_transport = f"{__name__}:WithoutFanout"

    assert levels(probe.queues(site)) == {"queues": "ok", "queue-unread": "unknown"}


def test_a_broker_in_memory_takes_a_message_and_nothing_is_left(site, levels):
    assert levels(broker(site)) == {"broker": "ok"}
    assert [name for name in memory.Channel.queues if name.startswith("taskkit.doctor")] == []


def test_a_broker_that_loses_what_it_takes_is_an_error(app, site):
    app.conf.broker_transport = f"{__name__}:Forgetting"

    [found] = broker(site)

    assert found.level.value == "error"
    assert "did not give it back" in found.text


class ForgettingChannel(memory.Channel):
    def _put(self, queue, message, **kwargs):
        pass


class Forgetting(memory.Transport):
    Channel = ForgettingChannel


def test_a_broker_url_that_makes_no_sense_is_an_error(app, site):
    app.conf.broker_url = "nonsense://:secret@host"

    [found] = broker(site)

    assert found.level.value == "error"
    assert "secret" not in found.text


def test_the_address_is_shown_without_its_password(app, site):
    app.conf.broker_url = "redis://:secret@127.0.0.1:1/0"

    [found] = broker(site)

    assert found.level.value == "error"
    assert "127.0.0.1:1" in found.text
    assert "secret" not in found.text
