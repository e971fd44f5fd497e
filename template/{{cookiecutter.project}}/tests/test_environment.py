"""What .env may look like, and that it changes nothing in the tests."""

import pytest
from django.conf import settings

from config.environment import Environment


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Return what settings see of a file."""
    monkeypatch.setattr(Environment, "only", None)

    def values(text, name):
        file = tmp_path / "env"
        file.write_text(text)
        return Environment(file).text(name)

    return values


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("SHOP=a teapot", "a teapot"),
        (" SHOP = a teapot ", "a teapot"),
        ('SHOP="a teapot"', "a teapot"),
        ("SHOP=' a teapot '", " a teapot "),
        ("export SHOP=a teapot", "a teapot"),
        ("SHOP=a=b", "a=b"),
        ('SHOP="', '"'),
        ("SHOP=\"a'", "\"a'"),
        ('SHOP=the "best"', 'the "best"'),
        ("#SHOP=a teapot", ""),
        ("# export SHOP=a teapot", ""),
        ("SHOP", ""),
    ],
)
def test_a_line_is_read_as_compose_and_systemd_read_it(read, line, value):
    assert read(line, "SHOP") == value


def test_the_environment_beats_the_file_unless_it_is_empty(read, monkeypatch):
    monkeypatch.setenv("SHOP", "a kettle")
    assert read("SHOP=a teapot", "SHOP") == "a kettle"
    monkeypatch.setenv("SHOP", "")
    assert read("SHOP=a teapot", "SHOP") == "a teapot"


def test_the_tests_know_nothing_of_this_machine(monkeypatch):
    monkeypatch.setenv("DIGEST_TO", "somebody@example.org")

    assert Environment().text("DIGEST_TO") == ""
    assert Environment().text("DJANGO_SETTINGS_MODULE") == settings.SETTINGS_MODULE
