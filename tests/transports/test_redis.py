"""Where the atomic Redis transport connects, by broker_url and broker_transport; no server is asked."""

import ssl

import pytest
from celery import Celery
from django.core.exceptions import ImproperlyConfigured
from kombu import Connection
from kombu.transport import redis as stock

from django_taskkit.transports import redis

TRANSPORT = "django_taskkit.transports.redis:Transport"


def connect(url, **options):
    return Connection(url, transport=TRANSPORT, transport_options=options)


def test_a_celery_app_takes_the_transport_by_one_setting():
    app = Celery("project", broker="redis://example/3", set_as_current=False)
    app.conf.broker_transport = TRANSPORT

    connection = app.connection_for_read()

    assert isinstance(connection.transport, redis.Transport)
    assert (connection.transport.driver_type, connection.hostname, connection.virtual_host) == ("redis", "example", "3")


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://example",
        "redis://user:p%40ss@example:7777/5",
        "rediss://example/1?ssl_cert_reqs=required&ssl_ca_certs=/ca.pem",
        "rediss://:secret@example:6380",
    ],
)
def test_a_url_means_what_it_means_to_kombus_own_transport(url):
    ours, theirs = connect(url), Connection(url)
    names = ("hostname", "port", "userid", "password", "virtual_host", "ssl")

    assert ours.info()["hostname"] == theirs.info()["hostname"]
    assert [getattr(ours, name) for name in names] == [getattr(theirs, name) for name in names]
    assert ours.transport.default_port == theirs.transport.default_port


def test_rediss_is_encrypted_also_in_copies_of_the_connection():
    connection = connect("rediss://example?ssl_cert_reqs=required")

    connection.info()

    assert connection.clone().ssl == connection.ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}


def test_broker_use_ssl_applies():
    connection = Connection("redis://example", transport=TRANSPORT, ssl={"ssl_ca_certs": "/ca.pem"})

    assert connection.transport.client.ssl == {"ssl_ca_certs": "/ca.pem"}


def test_a_sentinel_url_makes_channels_that_ask_the_sentinels():
    connection = connect("sentinel://one:26379;sentinel://two:26379", master_name="main")

    assert connection.transport.Channel is redis.SentinelChannel
    assert connection.transport.default_port == stock.SentinelTransport.default_port
    assert connection.clone().transport.Channel is redis.SentinelChannel
    assert connection.clone().alt == ["sentinel://one:26379", "sentinel://two:26379"]


def test_both_channels_put_the_atomic_fetch_before_kombus_own():
    for channel, base in ((redis.Channel, stock.Channel), (redis.SentinelChannel, stock.SentinelChannel)):
        assert channel.__mro__.index(redis.AtomicFetch) < channel.__mro__.index(base)
        assert channel.QoS is redis.QoS


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("sentinel://one", {}, "master_name"),
        ("redis://one", {"master_name": "main"}, "master_name"),
        ("amqp://guest:secret@one//", {}, "drop broker_transport"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_without_its_password(url, options, said):
    with pytest.raises(ImproperlyConfigured, match=said) as caught:
        assert connect(url, **options).transport

    assert "secret" not in str(caught.value)


def test_the_next_of_several_urls_keeps_the_transport():
    connection = connect("redis://one:1/1;rediss://two:2/2?ssl_cert_reqs=none;redis://three:3/3")
    assert isinstance(connection.transport, redis.Transport)

    for name, database, encrypted in (("two", "2", True), ("three", "3", False), ("one", "1", False)):
        connection.maybe_switch_next()
        assert isinstance(connection.transport, redis.Transport)
        assert (connection.hostname, connection.virtual_host, bool(connection.ssl)) == (name, database, encrypted)


@pytest.mark.parametrize(
    ("url", "options", "shown"),
    [
        ("redis://example/3", {}, "redis://example:6379/3"),
        ("rediss://user:secret@example:7000", {}, "rediss://user:**@example:7000//"),
        ("sentinel://example", {"master_name": "main"}, "sentinel://example:26379//"),
        ("socket:///run/redis.sock", {}, "socket:///run/redis.sock"),
    ],
)
def test_logs_and_banners_show_an_ordinary_url(url, options, shown):
    assert connect(url, **options).as_uri() == shown


def test_the_password_is_not_part_of_what_inspect_shows():
    info = connect("redis://:secret@example/3").info()

    assert info.pop("password") == "secret"
    assert "secret" not in repr(info)
