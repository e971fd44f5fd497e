"""Names of settings that Celery does not read are told, those of others are left alone."""

import os
import re
from pathlib import Path

import celery
import pytest
from celery.app import defaults

from django_taskkit.checks.configuration import EXTRA_KEYS, known_keys
from tests.checks.asking import deployment, ids, messages, said

BROKER = {"CELERY_BROKER_URL": "memory://"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CELERY_TASK_ACK_LATE", "CELERY_TASK_ACKS_LATE"),
        ("CELERY_RESLUT_EXPIRES", "CELERY_RESULT_EXPIRES"),
        ("CELERY_TASK_ALWAYS_EAGRE", "CELERY_TASK_ALWAYS_EAGER"),
        ("CELERY_WORKER_PREFETCH_MULTIPLYER", "CELERY_WORKER_PREFETCH_MULTIPLIER"),
    ],
)
def test_e011_a_typo(configured, module, name, meant):
    configured(module(**BROKER, **{name: True}))

    [message] = messages()

    assert (message.id, message.is_serious()) == ("taskkit.E011", True)
    assert message.msg == f"Celery has no setting {name}: it is ignored; did you mean {meant}?"


def test_every_setting_of_celery_may_be_given(configured, module):
    configured(module(**{f"CELERY_{key.upper()}": defaults.DEFAULTS.get(key) for key in known_keys()}))

    assert [message.id for message in deployment("taskkit.E011", "taskkit.E012", "taskkit.W021")] == []


def test_old_names_are_told_just_where_celery_does_not_read_them(configured, module):
    """Celery 5.7 reads them beside a namespace too; 5.5 and 5.6 don't, and say nothing."""
    app = configured(module(**BROKER, CELERYD_CONCURRENCY=7))

    assert (ids() == ["E011"]) is (app.conf.worker_concurrency != 7)


def test_old_names_without_a_namespace_are_read(configured, module):
    configured(module(BROKER_URL="memory://", CELERY_ACKS_LATE=True, CELERYD_CONCURRENCY=2), None)

    assert messages() == []
    assert said("W021", deploy=True) == []


def test_e011_a_typo_in_an_old_name(configured, module):
    configured(module(BROKER_URL="memory://", CELERYD_CONCURENCY=2), None)

    [message] = messages()

    assert message.msg.endswith("did you mean CELERYD_CONCURRENCY?")


@pytest.mark.parametrize("namespace", [None, "celery"])
def test_e012_names_with_a_prefix_that_the_app_does_not_look_for(configured, module, namespace):
    app = configured(module(**BROKER, CELERY_TASK_ACKS_LATE=True), namespace)

    [message] = messages()

    assert app.conf.task_acks_late is False
    assert (message.id, message.is_serious()) == ("taskkit.E012", True)
    assert message.msg.startswith("Celery does not read CELERY_BROKER_URL, CELERY_TASK_ACKS_LATE: the app has ")
    assert 'namespace="CELERY"' in message.hint


def test_e012_if_nothing_has_the_prefix_that_the_app_looks_for(configured, module):
    app = configured(module(**BROKER, CELERY_TASK_ACKS_LATE=True), "CEL")

    [message] = messages()

    assert app.conf.task_acks_late is False
    assert message.id == "taskkit.E012"
    assert "the app has the namespace 'CEL', and looks for other names" in message.msg


def test_e012_not_for_another_namespace_which_may_be_beside_another_app(configured, module):
    configured(module(SHOP_BROKER_URL="memory://", CELERY_TASK_ACKS_LATE=True), "SHOP")

    assert messages() == []


def test_the_namespace_of_the_app_is_what_counts(configured, module):
    configured(module(SHOP_BROKER_URL="memory://", SHOP_TASK_ACK_LATE=True), "SHOP")

    assert "did you mean SHOP_TASK_ACKS_LATE?" in messages()[0].msg


@pytest.mark.parametrize("source", [lambda **names: dict(names), None])
def test_e011_in_lower_case(configured, module, source):
    configured((source or module)(broker_url="memory://", task_ack_late=True), None)

    assert "did you mean task_acks_late?" in messages()[0].msg


def test_e011_of_what_is_set_on_the_app_itself(station):
    station.app.conf.update(task_ack_late=True)

    assert ids() == ["E011"]


def test_w021_a_name_in_whose_place_a_setting_may_be_meant(configured, module):
    configured(module(**BROKER, CELERY_CONCURRENCY=4))

    [message] = messages()

    assert (message.id, message.is_serious()) == ("taskkit.W021", False)
    assert "did you mean CELERY_WORKER_CONCURRENCY?" in message.msg


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CELERY_TASK_QUEUE", "CELERY_TASK_QUEUES"),
        ("CELERY_RESULT_BACKENDS", "CELERY_RESULT_BACKEND"),
        ("CELERY_RESULT_EXPIRE", "CELERY_RESULT_EXPIRES"),
        ("CELERY_BEAT_SCHEDULE_FILE", "CELERY_BEAT_SCHEDULE_FILENAME"),
    ],
)
def test_w021_a_name_that_one_may_give_to_ones_own(configured, module, name, meant):
    configured(module(**BROKER, **{name: "x"}))

    [message] = messages()

    assert (message.id, message.is_serious()) == ("taskkit.W021", False)
    assert f"did you mean {meant}?" in message.msg


@pytest.mark.parametrize("name", ["CELERY_TASKS", "CELERY_WORKER_NAME", "CELERY_QUEUE", "CELERY_TIMEOUT", "CELERY_URL"])
def test_w021_guesses_nothing_far_fetched(configured, module, name):
    configured(module(**BROKER, **{name: "x"}))

    assert messages() == []
    assert [message.msg for message in said("W021", deploy=True)] == [
        f"Celery has no setting {name}: if it is meant for Celery, it is ignored."
    ]


def test_w021_before_deployment_a_name_that_is_like_no_setting(configured, module):
    configured(module(**BROKER, CELERY_FOO_BAR=4))

    assert messages() == []
    assert [message.msg for message in said("W021", deploy=True)] == [
        "Celery has no setting CELERY_FOO_BAR: if it is meant for Celery, it is ignored."
    ]


def test_w021_not_for_settings_of_well_known_packages_and_ours(configured, module, settings):
    settings.TASKKIT_LANES = {}
    names = {"CELERY_EMAIL_BACKEND": "x", "CELERY_REDBEAT_REDIS_URL": "x", "CELERY_ONCE": {}, "CELERY_SINGLETON_KEY": 1}
    configured(module(**BROKER, TASKKIT_LANES={}, TASKKIT={}, **names))

    assert said("W021", deploy=True) == []


def test_variables_of_a_module_are_not_taken_for_settings(configured, module):
    configured(module(broker_url="memory://", os=os, env={}, redbeat_redis_url="x", task_modules=[], ONCE={}), None)

    assert said("W021", deploy=True) == []
    assert messages() == []


def test_nothing_that_celery_reads_is_unknown():
    """A setting that its table leaves out, and a new version reads, belongs to EXTRA_KEYS."""
    root = Path(celery.__file__).parent
    source = "\n".join(path.read_text() for path in root.rglob("*.py"))
    read = set(re.findall(r"""\bconf\.get\(\s*['"]([a-z_0-9]+)['"]""", source))
    read |= set(re.findall(r"""(?<!\w)_get\(\s*['"](redis_[a-z_0-9]+)['"]""", source))

    assert read - known_keys() - set(defaults.DEFAULTS) <= {"override_backends"}
    assert known_keys() >= EXTRA_KEYS
