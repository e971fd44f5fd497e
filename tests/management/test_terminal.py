"""What is printed is safe on any terminal, whoever wrote it and whoever reads it."""

import io
import json

import pytest
from django.core.management.base import CommandError, OutputWrapper

from django_taskkit.management.terminal import Output, confirm, shown, table


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines(stream):
    return stream.getvalue().splitlines()


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("\u202edetrevni\u2028", "\\u202edetrevni\\u2028"),
        ("\udc80", "\\udc80"),
        ("tätig 任務 👩\u200d🔧", "tätig 任務 👩\u200d🔧"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, safe):
    assert shown(text) == safe


def test_line_ends_and_tabs_may_stay():
    assert shown("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"


def test_characters_that_the_terminal_lacks_are_escaped():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", newline="\n")

    out = Output(OutputWrapper(stream))
    out.line("Köln 任務")
    out.flush()

    assert raw.getvalue() == b"K\\xf6ln \\u4efb\\u52d9\n"


def test_json_is_printable_ascii():
    stream = io.StringIO()

    Output(OutputWrapper(stream)).json({"a": "\x1b\x7f\x9b任"})

    assert stream.getvalue() == '{"a": "\\u001b\\u007f\\u009b\\u4efb"}\n'
    assert json.loads(stream.getvalue()) == {"a": "\x1b\x7f\x9b任"}


def test_a_table_fits_the_terminal_and_keeps_what_the_next_command_needs(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    task_id = "3f2c0e0c-8f6e-4b5a-9a35-1d7d6b3f7f10"

    rows = [[task_id, "orders.tasks.send_receipt", "ValueError: no " * 5]]
    table(Output(OutputWrapper(stream)), ["ID", "TASK", "WHAT"], rows)

    head, row = lines(stream)
    assert len(row) <= 60
    assert row.startswith(task_id + "  ")
    assert row.count("..") == 2
    assert head.index("TASK") == row.index("orders")


def test_a_table_that_is_no_terminals_is_not_cut(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = io.StringIO()

    table(Output(OutputWrapper(stream)), ["ID", "WHAT"], [["a", "x" * 100], ["bb", ""]])

    assert lines(stream) == [f"ID  {'WHAT'}", f"a   {'x' * 100}", "bb"]


def test_chinese_takes_two_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "24")
    stream = Terminal()

    table(Output(OutputWrapper(stream)), ["ID", "TASK", "N"], [["a", "任務" * 20, "1"], ["b", "short", "2"]], (0, 2))

    head, first, second = lines(stream)
    assert len(head) == 24
    assert first == f"a   {'任務' * 3}任..   1"
    assert second == "b   short              2"


def test_one_line_for_each_row_whatever_is_in_it():
    stream = io.StringIO()

    table(Output(OutputWrapper(stream)), ["ID", "WHAT"], [["a\nb", "c\x1b[0m"]])

    assert lines(stream)[1] == "a\\nb  c\\x1b[0m"


class Stdin(io.StringIO):
    def __init__(self, text, terminal=True):
        super().__init__(text)
        self.isatty = lambda: terminal


@pytest.mark.parametrize("answer", ["y\n", "Yes\n", " y \n"])
def test_a_yes_is_a_yes(monkeypatch, answer):
    monkeypatch.setattr("sys.stdin", Stdin(answer))

    confirm("Requeue 3?", yes=False, nothing="Nothing was requeued")


@pytest.mark.parametrize("answer", ["\n", "n\n", "", "yeah\n"])
def test_all_else_is_a_no(monkeypatch, capsys, answer):
    monkeypatch.setattr("sys.stdin", Stdin(answer))

    with pytest.raises(CommandError, match="Nothing was requeued") as caught:
        confirm("Requeue 3?", yes=False, nothing="Nothing was requeued")

    assert caught.value.returncode == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "Requeue 3? [y/N] ")


@pytest.mark.parametrize("stdin", [Stdin("y\n", terminal=False), None])
def test_without_a_terminal_nothing_is_asked(monkeypatch, stdin):
    monkeypatch.setattr("sys.stdin", stdin)

    with pytest.raises(CommandError, match="say --yes") as caught:
        confirm("Requeue 3?", yes=False, nothing="Nothing was requeued")

    assert caught.value.returncode == 2
    confirm("Requeue 3?", yes=True, nothing="")
