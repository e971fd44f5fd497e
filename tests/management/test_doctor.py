import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command, execute_from_command_line

from django_taskkit.doctor.finding import Finding, Level
from django_taskkit.doctor.running import Probe, Where
from django_taskkit.management import doctor

pytestmark = pytest.mark.django_db


def found(level, text="Text.", remedy="", id="tried"):
    return Finding(id=id, level=Level(level), text=text, remedy=remedy)


@pytest.fixture
def probes(monkeypatch):
    """``probes(tried=[finding], other=[...])``: these are all there are."""

    def probes(**findings):
        made = [
            Probe(name=name, asks="", look=lambda site, of=of: iter(of), where=Where.HERE)
            for name, of in findings.items()
        ]
        monkeypatch.setattr(doctor, "PROBES", tuple(made))

    return probes


def run(*arguments):
    """Return exit code and output of ``manage.py taskkit doctor …``."""
    said, code = StringIO(), 0
    try:
        call_command("taskkit", "doctor", *arguments, stdout=said)
    except SystemExit as exit:
        code = exit.code
    return code, said.getvalue()


def typed(*arguments):
    """Return the exit code of the command as it is typed."""
    try:
        execute_from_command_line(["manage.py", "taskkit", "doctor", *arguments])
    except SystemExit as exit:
        return exit.code
    return 0


def test_what_is_fine_takes_one_line_and_what_is_not_says_what_to_do(probes):
    probes(tried=[found("ok", "All is well.")], other=[found("error", "It is broken.", "Mend it.", id="other")])

    code, said = run()

    assert code == 1
    assert said.splitlines() == [
        "ok       tried  All is well.",
        "ERROR    other  It is broken.",
        "                Mend it.",
        "                docs/doctor.md#other",
        "",
        "1 error, 1 ok.",
    ]


@pytest.mark.parametrize(
    ("level", "fail_on", "code"),
    [
        ("ok", "warning", 0),
        ("unknown", "warning", 0),
        ("warning", "error", 0),
        ("warning", "warning", 1),
        ("error", "error", 1),
        ("error", "warning", 1),
    ],
)
def test_the_exit_code_is_for_deployments(probes, level, fail_on, code):
    probes(tried=[found(level)])

    assert run("--fail-on", fail_on)[0] == code
    assert typed("--fail-on", fail_on) == code


def test_json_has_these_keys(probes):
    probes(tried=[found("warning", "Text é.", "Do.")])

    code, said = run("--json", "--fail-on", "warning")

    assert code == 1
    assert said.isascii()
    assert json.loads(said) == {
        "format": 1,
        "level": "warning",
        "failed": True,
        "findings": [
            {
                "probe": "tried",
                "id": "tried",
                "level": "warning",
                "text": "Text é.",
                "remedy": "Do.",
                "docs": "docs/doctor.md#tried",
            }
        ],
    }


def test_what_workers_and_brokers_say_moves_no_cursor(probes):
    probes(tried=[found("error", "\x1b[2J\nok  fine", "\x1b]0;x\x07")])

    assert "\x1b" not in run()[1]
    assert len(run()[1].splitlines()) == 5


def test_probes_can_be_chosen_and_left_out(probes):
    probes(one=[found("ok", id="one")], two=[found("ok", id="two")], three=[found("ok", id="three")])

    def ids(*arguments):
        return [finding["id"] for finding in json.loads(run("--json", *arguments)[1])["findings"]]

    assert ids() == ["one", "two", "three"]
    assert ids("--only", "three", "--only", "one") == ["one", "three"]
    assert ids("--skip", "two") == ["one", "three"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "nonsense"), "no probe 'nonsense'"),
        (("--skip", "nonsense"), "no probe 'nonsense'"),
        (("--only", "tried", "--skip", "tried"), "leaves none"),
        (("--timeout", "0"), "--timeout is 0"),
        (("--timeout", "nan"), "--timeout is nan"),
        (("--timeout", "inf"), "--timeout is inf; give a number of seconds from 1 to 3600"),
        (("--timeout", "1e12"), r"--timeout is 1e\+12"),
    ],
)
def test_options_that_make_no_sense_exit_with_2(probes, arguments, said, capsys):
    probes(tried=[found("ok")])

    with pytest.raises(CommandError, match=said):
        run(*arguments)
    assert typed(*arguments) == 2
    assert typed("--fail-on", "never") == 2


def test_ctrl_c_ends_it_with_one_sentence_and_130(probes, monkeypatch, capsys):
    def interrupted(site):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "PROBES", (Probe(name="tried", asks="", look=interrupted, where=Where.HERE),))

    assert typed() == 130
    assert "Interrupted" in capsys.readouterr().err


@pytest.fixture
def broken_tasks(station, monkeypatch):
    """A module of the project's tasks can't be imported."""

    def refuse():
        raise ImportError("No module named 'pandas'")

    monkeypatch.setattr(station.app.loader, "import_default_modules", refuse)


@pytest.mark.parametrize("chosen", [(), ("--only", "tried")])
def test_tasks_that_can_not_be_imported_are_an_error_and_the_other_probes_go_on(broken_tasks, probes, chosen):
    probes(tried=[found("ok")])
    code, said = run("--json", *chosen)

    first, second = json.loads(said)["findings"]
    assert code == 1
    assert (first["id"], first["level"], second["id"]) == ("task-modules", "error", "tried")
    assert "No module named 'pandas'" in first["text"]


def test_who_leaves_that_out_is_not_told(broken_tasks, probes, monkeypatch):
    probes(tried=[found("ok")])
    monkeypatch.setattr(doctor, "PROBES", (doctor.MODULES, *doctor.PROBES))

    assert run("--skip", "task-modules")[0] == 0


def test_all_real_probes_run_on_a_broker_in_memory():
    code, said = run("--json", "--skip", "clocks")

    levels = {finding["id"]: finding["level"] for finding in json.loads(said)["findings"]}
    assert code == 1
    assert levels["workers"] == "error"  # none is there
    assert levels["broker"] == levels["database"] == levels["migrations"] == levels["results"] == "ok"
