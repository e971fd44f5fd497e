"""Messages that nobody reads, and those that anybody may write."""

import ssl

import pytest

from tests.checks.asking import messages, said
from tests.checks.conftest import REDIS


@pytest.fixture
def json_only(station):
    station.app.conf.update(accept_content=["json"], result_backend=None)
    return station.app


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        ({"task_serializer": "pickle"}, "task_serializer is 'pickle', which is not among accept_content"),
        ({"result_serializer": "yaml"}, "result_serializer is 'yaml', which is not"),
        ({"task_serializer": "jsn"}, "task_serializer is 'jsn', which is none that kombu knows"),
        ({"accept_content": ["yaml", "application/x-yaml"]}, "task_serializer is 'json'"),
        (
            {"result_accept_content": ["pickle"]},
            "result_serializer is 'json', which is not among result_",
        ),
    ],
)
def test_e018_what_is_sent_is_not_accepted(json_only, conf, told):
    json_only.conf.update(conf)

    found = messages()

    assert {message.id for message in found} == {"taskkit.E018"}
    assert found[0].is_serious()
    assert any(told in message.msg for message in found)


@pytest.mark.parametrize(
    "conf",
    [
        {"accept_content": ["application/json"]},
        {"accept_content": {"json", "pickle"}, "task_serializer": "pickle"},
        {"result_accept_content": ["pickle", "json"], "result_serializer": "pickle"},
    ],
)
def test_e018_not_for_what_is(json_only, conf):
    json_only.conf.update(conf)

    assert messages() == []


def test_e018_the_serializer_of_a_task(json_only, late):
    late("odd", serializer="pickle")
    late("usual", serializer="json")

    assert [(message.id, message.obj) for message in messages()] == [("taskkit.E018", "odd")]


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        ({"accept_content": ["json", "pickle"]}, ["accept_content"]),
        ({"accept_content": ["application/x-python-serialize", "json"]}, ["accept_content"]),
        ({"result_accept_content": ["json", "pickle"]}, ["result_accept_content"]),
        ({}, []),
    ],
)
def test_w044_pickle_is_accepted(json_only, conf, told):
    json_only.conf.update(conf)

    assert [message.msg.partition(" ")[0] for message in said("W044", deploy=True)] == told
    assert messages() == []


NONE = [
    *({"ssl_cert_reqs": ssl.CERT_NONE}, {"cert_reqs": ssl.CERT_NONE}),
    *({"ssl_cert_reqs": "CERT_NONE"}, {"cert_reqs": "none"}),
]


@pytest.mark.parametrize("options", NONE)
@pytest.mark.parametrize("key", ["broker_use_ssl", "redis_backend_use_ssl"])
def test_w045_nobody_looks_at_the_certificate(station, key, options):
    station.app.conf[key] = options

    assert [message.msg.partition(": ")[0] for message in said("W045", deploy=True)] == [f"CERT_NONE in {key}"]


@pytest.mark.parametrize("query", ["ssl_cert_reqs=none", "ssl_cert_reqs=CERT_NONE", "health=1&ssl_cert_reqs=None"])
@pytest.mark.parametrize("key", ["broker_url", "result_backend"])
def test_w045_in_a_url(station, key, query):
    station.app.conf[key] = f"rediss://:hunter2@127.0.0.1:1/0?{query}"

    found = [message for message in said("W045", deploy=True) if f"the URL in {key}" in message.msg]

    assert len(found) == 1
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    "conf",
    [
        {"broker_use_ssl": {"ssl_cert_reqs": ssl.CERT_REQUIRED}},
        {"broker_use_ssl": True},
        {"broker_url": "rediss://127.0.0.1:1/0?ssl_cert_reqs=required"},
        {"broker_url": REDIS},
    ],
)
def test_w045_not_where_somebody_does(station, conf):
    station.app.conf.update(conf)

    assert said("W045", deploy=True) == []
