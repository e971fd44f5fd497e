"""A token says which task it is about, for whom, and until when; nobody else can make one."""

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core import signing
from django.urls import reverse
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy

from django_taskkit.results.tokens import Pointer, make_token, read_token

TASK = {"alias": "default", "task_id": "2fd8ae1c-2b8e-4f8c-bd2a-6f5b3a1c9d10"}


def test_a_token_holds_what_it_was_made_of():
    token = make_token(**TASK, user=7, then="/reports/?a=1&b=ü", label="Báo cáo 報告")

    assert read_token(token) == Pointer(**TASK, user="7", then="/reports/?a=1&b=ü", label="Báo cáo 報告")


def test_a_text_that_is_yet_to_be_translated_is_kept_as_it_reads_now():
    assert read_token(make_token(**TASK, label=gettext_lazy("Progress"))).label == "Progress"


@pytest.mark.parametrize(
    ("user", "key"),
    [
        (None, ""),
        (AnonymousUser(), ""),
        (User(pk=7), "7"),
        (SimpleLazyObject(lambda: User(pk=7)), "7"),
        (SimpleLazyObject(AnonymousUser), ""),
        (0, "0"),
        ("6f1c", "6f1c"),
    ],
)
def test_a_token_is_made_for_a_user_or_for_whoever_has_it(user, key):
    assert read_token(make_token(**TASK, user=user)).user == key


def test_a_token_is_good_for_a_day(clock):
    token = make_token(**TASK)

    clock.shift(86_399)
    assert read_token(token).task_id == TASK["task_id"]
    clock.shift(2)
    with pytest.raises(signing.SignatureExpired):
        read_token(token)


def test_who_reads_a_token_may_want_a_newer_one(clock):
    token = make_token(**TASK)
    clock.shift(61)

    with pytest.raises(signing.SignatureExpired):
        read_token(token, max_age=60)


@pytest.mark.parametrize(
    "forge",
    [
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: "A" + token[1:],
        lambda token: token.partition(":")[2],
        lambda token: signing.dumps(["default", TASK["task_id"], "", "", ""]),
        lambda token: signing.dumps(["default", TASK["task_id"], "", "", ""], key="guessed"),
        lambda token: TASK["task_id"],
        lambda token: "é:\x00:\ud83d",
        lambda token: ":::",
        lambda token: "",
    ],
)
def test_a_token_that_was_not_made_here_is_refused(forge):
    with pytest.raises(signing.BadSignature):
        read_token(forge(make_token(**TASK, user=7)))


def test_tokens_outlive_a_change_of_the_secret_key(settings):
    token = make_token(**TASK)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "a new one", [settings.SECRET_KEY]

    assert read_token(token).task_id == TASK["task_id"]


def test_no_web_server_takes_a_token_for_a_hidden_file():
    for length in range(0, 2000, 100):
        assert not make_token(**TASK, label="a" * length).startswith(".")


def test_a_token_fits_into_a_url(settings):
    settings.ROOT_URLCONF = "django_taskkit.results.urls"
    token = make_token(**TASK, user=7, then="/reports/2026/?month=11", label="Sales report")

    assert reverse("status", kwargs={"token": token}) == f"/{token}/"
    assert len(token) < 300
