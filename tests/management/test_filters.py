"""The filters of the verbs, as they are typed."""

import shlex
from datetime import datetime, timedelta, timezone

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import CommandParser
from django.test import override_settings
from django.utils import timezone as django_timezone

from django_taskkit.dlq.selection import Selection
from django_taskkit.management.filters import add_filters, coming, is_narrowed, moment, seconds, selection_of
from tests.management.test_taskkit import run


def parsed(*arguments, **defaults):
    parser = CommandParser()
    add_filters(parser, **defaults)
    return vars(parser.parse_args(arguments))


def chosen(*arguments, **defaults):
    return selection_of(parsed(*arguments, **defaults))


def test_without_filters_it_is_what_waits():
    assert chosen() == Selection()
    assert chosen(status="any", revoked=True) == Selection(status="", revoked=True)


def test_every_filter_is_understood():
    assert chosen(
        *("--task", "orders.*", "--reason", "expired", "--exception", "Timeout", "--queue", "mail"),
        *("--group", "ab12", "--status", "held", "--since", "2026-11-21T03:00Z", "--until", "2026-11-22", "--revoked"),
    ) == Selection(
        task="orders.*",
        reason="expired",
        exception="Timeout",
        queue="mail",
        group="ab12",
        status="held",
        since=datetime(2026, 11, 21, 3, tzinfo=timezone.utc),
        until=datetime(2026, 11, 22, tzinfo=timezone.utc),
        revoked=True,
    )


def test_an_id_means_that_dead_letter_whatever_its_status():
    assert chosen("--id", "a", "--id", "b") == Selection(ids=("a", "b"), status="")
    assert chosen("--id", "a", "--status", "dead").status == "dead"


def test_a_selection_that_was_printed_can_be_typed_again():
    first = chosen("--task", "a*", "--since", "2026-11-21T03:00", "--status", "any", "--revoked")

    assert chosen(*shlex.split(str(first))) == first


@pytest.mark.parametrize(
    ("arguments", "narrowed"),
    [
        ((), False),
        (("--status", "held"), False),
        (("--revoked",), False),
        (("--task", "*"), True),
        (("--id", "a"), True),
    ],
)
def test_a_status_alone_narrows_nothing(arguments, narrowed):
    assert is_narrowed(parsed(*arguments)) is narrowed


@pytest.mark.parametrize("option", ["--id", "--task", "--exception", "--queue", "--group"])
def test_a_variable_of_the_shell_that_is_not_set_does_not_mean_everything(option, capsys):
    assert run("list", option, "") == 2
    assert f"argument {option}: it is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--since", "yesterday"), "'yesterday' is no time; give 2026-11-21T03:00, 2026-11-21, or how long ago: 15m"),
        (("--since", "2026-02-30"), "'2026-02-30' is no time"),
        (("--since", "999999w"), "'999999w' is no time"),
        (("--until", "9999999999999w"), "'9999999999999w' is longer than time can be counted"),
        (("--since", "1h", "--until", "2h"), "Nothing lies between --since and --until"),
        (("--reason", "boredom"), "retries_exhausted"),
        (("--status", "deed"), "recovered"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_sentence_and_the_code_is_2(arguments, says, capsys):
    assert run("list", *arguments) == 2

    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
    with pytest.raises(CommandError):
        call_command("taskkit", "list", *arguments)


@pytest.mark.parametrize(
    ("text", "length"), [("90s", 90), ("15m", 900), ("2h", 7200), ("3d", 259_200), ("1w", 604_800)]
)
def test_how_long_ago_and_how_long_from_now(text, length):
    now = django_timezone.now()

    assert abs((now - moment(text)).total_seconds() - length) < 60
    assert abs((coming(text) - now).total_seconds() - length) < 60
    assert seconds(text) == length


def test_seconds_may_be_a_plain_number():
    assert (seconds("90"), seconds("0.5")) == (90, 0.5)


@pytest.mark.parametrize("text", ["-1", "soon", "1e3", "nan"])
def test_seconds_are_counted_forward(text):
    with pytest.raises(Exception, match="no length of time"):
        seconds(text)


def test_a_time_without_a_zone_is_one_of_the_projects(settings):
    settings.TIME_ZONE = "Asia/Taipei"

    assert moment("2026-11-21T03:00") == datetime(2026, 11, 20, 19, tzinfo=timezone.utc)
    assert moment("2026-11-21") == datetime(2026, 11, 20, 16, tzinfo=timezone.utc)
    assert moment("2026-11-21T03:00+01:00") == datetime(2026, 11, 21, 2, tzinfo=timezone.utc)


def test_a_project_without_time_zones_gets_a_time_without_one():
    with override_settings(USE_TZ=False, TIME_ZONE="Asia/Taipei"):
        assert moment("2026-11-21T03:00") == datetime(2026, 11, 21, 3)
        assert moment("2026-11-21T03:00Z") == datetime(2026, 11, 21, 11)
        assert datetime.now() - moment("1h") < timedelta(hours=1, minutes=1)
