import sys

import pytest

from django_taskkit.doctor.modules import modules


@pytest.fixture
def tasks_module(app, monkeypatch, tmp_path):
    """``tasks_module(text)``: the project has a module of tasks with this text."""

    def tasks_module(text):
        (tmp_path / "doctors_tasks.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "doctors_tasks", raising=False)
        app.conf.imports = ["doctors_tasks"]

    return tasks_module


def test_tasks_that_can_be_imported_are_fine(site, tasks_module):
    tasks_module("number = 1\n")

    assert [finding.level.value for finding in modules(site)] == ["ok"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library' ("),
        ("number = 1\nraise KeyError('secret')\n", "KeyError (/"),
    ],
)
def test_a_module_that_can_not_be_imported_is_an_error_that_names_the_place(site, tasks_module, text, said):
    tasks_module(text)
    [finding] = modules(site)

    assert finding.level.value == "error"
    assert said in finding.text
    assert f"doctors_tasks.py, line {text.count(chr(10))})" in finding.text
    assert "secret" not in finding.text
    assert finding.remedy
