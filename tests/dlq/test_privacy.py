"""Secrets are hidden by the name of what holds them, at any depth."""

from celery import Celery

from django_taskkit.conf import Settings
from django_taskkit.dlq.privacy import HIDDEN, named_arguments, redacted, tells_secret

NAMES = Settings().redact


def test_a_secret_is_hidden_at_any_depth():
    value = {"user": {"name": "Bob", "Password": "hunter2", "cards": [{"card_number": "4111"}, {"kind": "debit"}]}}

    assert redacted(value, NAMES) == {
        "user": {"name": "Bob", "Password": HIDDEN, "cards": [{"card_number": HIDDEN}, {"kind": "debit"}]}
    }


def test_a_whole_structure_under_a_telling_name_is_hidden():
    assert redacted({"credentials": {"a": [1, 2]}}, NAMES) == {"credentials": HIDDEN}


def test_the_original_is_not_touched():
    value = {"password": "hunter2"}

    redacted(value, NAMES)

    assert value == {"password": "hunter2"}


def test_names_are_told_however_they_are_written():
    for name in ("API-Key", "apiKey", "x_api_key_2", "Authorization", "ACCESS_TOKEN", "sessionId"):
        assert tells_secret(name, NAMES), name


def test_ordinary_names_are_shown():
    for name in ("order_id", "key", "author", "amount", 7, None):
        assert not tells_secret(name, NAMES), name


def test_what_is_nested_beyond_reason_is_hidden():
    value = leaf = {}
    for _ in range(200):
        leaf["a"] = leaf = {}
    leaf["password"] = "hunter2"

    assert "hunter2" not in repr(redacted(value, NAMES))


def test_positional_arguments_get_the_names_of_the_signature():
    app = Celery("names", set_as_current=False)

    @app.task(name="login")
    def login(user, password, *more, **options): ...

    assert named_arguments(app, "login", ["bob", "hunter2"], {"remember": True}) == {
        "user": "bob",
        "password": "hunter2",
        "options": {"remember": True},
    }


def test_arguments_of_an_unknown_task_are_numbered():
    app = Celery("nobody", set_as_current=False)

    assert named_arguments(app, "gone", [1, 2], {"a": 3}) == {"1": 1, "2": 2, "a": 3}


def test_a_module_of_tasks_that_can_not_be_imported_keeps_nobody_from_seeing_arguments():
    app = Celery("broken", set_as_current=False, include=["no.such.module"])

    assert named_arguments(app, "gone", [1], {}) == {"1": 1}


def test_arguments_that_do_not_fit_are_numbered():
    app = Celery("misfit", set_as_current=False)

    @app.task(name="one")
    def one(a): ...

    assert named_arguments(app, "one", [1, 2], {}) == {"1": 1, "2": 2}
