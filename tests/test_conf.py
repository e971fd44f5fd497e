"""The TASKKIT setting: typed, live, and particular about its keys."""

import pytest

from django_taskkit import conf
from django_taskkit.exceptions import ConfigurationError


def test_nothing_has_to_be_set():
    assert conf.current().capture == "all"
    assert "password" in conf.current().redact


def test_settings_follow_override_settings(settings):
    settings.TASKKIT = {"RELEASE": "1.4.2", "REDACT": ["pin"]}

    assert conf.current().release == "1.4.2"
    assert conf.current().redact == ("pin",)

    settings.TASKKIT = {}

    assert conf.current().release == ""


@pytest.mark.parametrize("names", [[], ["prometheus"], ("opentelemetry", "prometheus")])
def test_metrics_are_for_one_library_or_two_or_none(settings, names):
    settings.TASKKIT = {"METRICS": names}

    assert conf.current().metrics == tuple(names)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"RELAESE": "1"}, "TASKKIT['RELAESE'] is not a setting; did you mean 'RELEASE'?"),
        ({"XYZ": 1}, "TASKKIT['XYZ'] is not a setting; the settings are BEAT_LOCK, CAPTURE, "),
        ({7: 1}, "TASKKIT[7] is not a setting"),
        ({"CAPTURE": "none"}, "TASKKIT['CAPTURE'] is 'none'; give one of 'all', 'opt_in'."),
        ({"REDACT": "password"}, "TASKKIT['REDACT'] is 'password'; give a list of names"),
        ({"REDACT": [1]}, "give a list of names"),
        ({"RELEASE": 2}, "TASKKIT['RELEASE'] is 2; give a text of at most 255 characters."),
        ({"TRACEBACK_MAX_LENGTH": 10}, "give a whole number of characters, 1000 or more"),
        ({"MESSAGE_MAX_LENGTH": True}, "give a whole number of characters, 100 or more"),
        ({"RETENTION_DAYS": 0}, "give a whole number of days, 1 or more, or None"),
        ({"DEAD_WARN_COUNT": 1.5}, "give a whole number, 1 or more, or None"),
        ({"DEAD_WARN_AGE_DAYS": "30"}, "give a whole number of days, 1 or more, or None"),
        ({"SPOOL_DIR": "spool"}, "TASKKIT['SPOOL_DIR'] is 'spool'; give an absolute path"),
        ({"SPOOL_DIR": "~/spool"}, "give an absolute path"),
        ({"HEALTH_DIR": "run"}, "TASKKIT['HEALTH_DIR'] is 'run'; give an absolute path, such as '/run/project'"),
        ({"BEAT_LOCK": True}, "TASKKIT['BEAT_LOCK'] is True; give one of 'database', 'store', 'off'."),
        ({"METRICS": "prometheus"}, "TASKKIT['METRICS'] is 'prometheus'; give a list of names, for example"),
        ({"METRICS": ["statsd"]}, "TASKKIT['METRICS'] is ['statsd']; give a list of 'prometheus' and 'opentelemetry'"),
        ({"SITE_URL": None}, "TASKKIT['SITE_URL'] is None; give a text"),
        (["RELEASE"], "TASKKIT is ['RELEASE'], but it has to be a dict"),
    ],
)
def test_a_wrong_setting_is_one_sentence_with_the_value_and_the_remedy(settings, value, complaint):
    settings.TASKKIT = value

    with pytest.raises(ConfigurationError) as caught:
        conf.current()

    assert complaint in str(caught.value)


def test_every_problem_is_told_at_once():
    assert len(conf.problems({"CAPTURE": "none", "RELAESE": "1"})) == 2
