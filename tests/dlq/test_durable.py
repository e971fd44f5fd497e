"""A silent database keeps nobody waiting for long."""

import socket
import time

import pytest
from django.db import InterfaceError, OperationalError, connection, connections

from django_taskkit.dlq import durable

SLEEP = {"postgresql": "SELECT pg_sleep(60)", "mysql": "SELECT SLEEP(60)"}


@pytest.fixture(autouse=True)
def server():
    if connection.vendor not in SLEEP:
        pytest.skip("SQLite is a file, which does not fall silent")


@pytest.mark.django_db(transaction=True)
def test_a_statement_that_gets_no_answer_is_cut():
    connection.ensure_connection()
    before = time.monotonic()

    with (
        pytest.raises((OperationalError, InterfaceError)),
        durable.durable("default", seconds=1),
        connection.cursor() as cursor,
    ):
        cursor.execute(SLEEP[connection.vendor])

    assert time.monotonic() - before < 20
    connection.close()


@pytest.mark.django_db(transaction=True)
def test_what_is_in_time_is_left_alone():
    connection.ensure_connection()
    own = connection.connection

    with durable.durable("default", seconds=60), connection.cursor() as cursor:
        cursor.execute("SELECT 1")

    assert connection.connection is own
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@pytest.mark.django_db(transaction=True)
def test_a_connection_of_its_own_is_closed_again():
    connection.close()

    with durable.durable("default", seconds=60):
        own = connections["default"]
        assert own.connection is not None

    assert own.connection is None
    assert connections["default"] is not own


@pytest.mark.django_db(transaction=True)
def test_a_server_that_accepts_and_says_nothing_is_no_connection(monkeypatch):
    connection.close()
    monkeypatch.setitem(durable._PATIENCE, "postgresql", {"connect_timeout": 2})
    monkeypatch.setitem(durable._PATIENCE, "mysql", {"connect_timeout": 2, "read_timeout": 2})
    before = time.monotonic()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = {"HOST": "127.0.0.1", "PORT": str(silent.getsockname()[1])}
        monkeypatch.setattr(connections["default"], "settings_dict", {**connection.settings_dict, **address})

        with pytest.raises(durable.NoConnectionError), durable.durable("default", seconds=60):
            raise AssertionError("there is no connection")

    assert time.monotonic() - before < 20


@pytest.mark.django_db(transaction=True)
def test_django_s_pool_of_connections_is_left_alone(monkeypatch):
    if connection.vendor != "postgresql":
        pytest.skip("Django has pools for PostgreSQL alone")
    pytest.importorskip("psycopg_pool")
    connection.close()
    options = {**connection.settings_dict.get("OPTIONS", {}), "pool": True}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)

    with durable.durable("default", seconds=60), connections["default"].cursor() as cursor:
        cursor.execute("SELECT 1")
        assert connections["default"].pool is None
    with durable.kept_open("default"):
        assert connection.connection is None

    assert not type(connections["default"])._connection_pools
