"""Edit and requeue, as an operator does it: a field for each argument, nothing else changed, everything logged."""

import enum
import json
import re
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from html import unescape
from typing import Any, Literal, Optional

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.urls import reverse
from kombu.utils import json as kombu_json

from django_taskkit.dlq import editing
from django_taskkit.dlq.privacy import HIDDEN
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db

LIST = "/admin/django_taskkit/deadletter/"
NOW = datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=7)))


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


@pytest.fixture(autouse=True)
def _tasks(station, settings):
    settings.TASKKIT = {"EDITABLE": ["shop.*"]}

    @station.app.task(name="shop.pay")
    def pay(order: int, note: Optional[str] = None, password: str = "", retries: int = 3, **more): ...  # noqa: UP045

    @station.app.task(name="shop.rich")
    def rich(
        count: int,
        ratio: float,
        price: Decimal,
        name: str,
        text: str,
        is_gift: bool,
        when: datetime,
        day: date,
        key: uuid.UUID,
        size: Size,
        color: Literal["red", "blue"],
        anything,
        lines: list[int],
        maybe: int | None,
        *rest: int,
        **more: Any,
    ): ...


def letter(args=(7,), kwargs=None, task="shop.pay", **values):
    return DeadLetter.objects.create(
        **{
            "task_id": "the-id",
            "task_name": task,
            "reason": "exception",
            "queue": "shop",
            "died_at": NOW,
            "body": kombu_json.dumps([list(args), kwargs or {}, {"chain": None}]).encode(),
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "headers": {"id": "the-id", "task": task, "tenant": "t1"},
            "properties": {},
            **values,
        }
    )


RICH = {
    "count": 2**60,
    "ratio": 0.1,
    "price": Decimal("1.50"),
    "name": "Đỗ <Văn>",
    "text": "two\nlines ",
    "is_gift": False,
    "when": NOW,
    "day": date(2026, 11, 21),
    "key": uuid.UUID(int=7),
    "size": "s",
    "color": "blue",
    "anything": {"a": [1, 1.0, None, NOW]},
    "lines": [1, 2],
    "maybe": None,
    "extra": {"card_number": "4111"},
}


@pytest.fixture
def operator(client):
    """Make the one who is logged in, with some permissions."""

    def operator(*more):
        names = ["view_deadletter", "edit_deadletter", *more]
        user = get_user_model().objects.create_user("ann", password="x", is_staff=True)
        user.user_permissions.set(
            Permission.objects.filter(codename__in=names, content_type__app_label="django_taskkit")
        )
        client.force_login(user)
        return user

    return operator


def url(row):
    return f"{LIST}{row.pk}/edit/"


def page(response):
    return response.content.decode()


def told(response):
    return [str(message) for message in response.context["messages"]]


def filled(client, row):
    """What a browser would post if nothing were touched, by the names of the parameters."""
    form = client.get(url(row)).context["form"]
    data = {"digest": editing.digest(row), "note": ""}
    for shown in form.rows:
        for field in filter(None, [shown.field, shown.how]):
            value = field.value()
            data[field.html_name] = "" if value is None else str(value).replace("\n", "\r\n")
    return data, {
        shown.name: tuple(field.html_name if field else None for field in (shown.field, shown.how))
        for shown in form.rows
    }


def post(client, row, changes=None, **more):
    """Change some arguments (a value, or how it is to be) and press a button."""
    data, names = filled(client, row)
    for name, value in (changes or {}).items():
        field, how = names[name]
        if isinstance(value, dict):
            data[how] = value["how"]
        else:
            data[field] = value
            if how:
                data[how] = "given"
    return client.post(url(row), {**data, "save": "Save", **more}, follow=True)


def call(row):
    row.refresh_from_db()
    return row.envelope.payload()[:2]


def test_it_is_edited_reported_and_logged(client, operator):
    user = operator()
    row = letter([7], {"note": "x"})

    response = post(client, row, {"order": "8"}, note="typo")

    assert response.redirect_chain[-1][0] == f"{LIST}{row.pk}/change/"
    assert told(response) == ["The arguments were changed."]
    assert call(row) == ([8], {"note": "x"})
    event = row.events.get(kind="edited")
    assert (event.by, event.note) == ("ann", "typo\norder: 7 → 8")
    entry = LogEntry.objects.get(user=user)
    assert (entry.change_message, entry.object_id) == ("Edit: order: 7 → 8", str(row.pk))
    assert row.status == "dead"


def test_it_is_requeued_in_one_go(client, operator, station):
    operator("requeue_deadletter")
    row = letter(queue=station.queue)

    response = post(client, row, {"order": "8"}, requeue="Save and requeue")

    assert told(response) == ["The arguments were changed.", "1 dead letter was requeued."]
    message = station.take()
    assert json.loads(message.body)[0] == [8]
    assert (message.headers["id"], message.headers["tenant"]) == ("the-id", "t1")
    assert [event.kind for event in row.events.order_by("pk")] == ["edited", "requeued"]


def test_who_may_not_requeue_can_not_do_it_here_either(client, operator, station):
    operator()
    row = letter(queue=station.queue)

    assert "Save and requeue" not in page(client.get(url(row)))
    post(client, row, {"order": "8"}, requeue="1")

    row.refresh_from_db()
    assert (row.status, station.waiting()) == ("dead", 0)


def test_nothing_is_changed_where_nothing_was_touched(client, operator):
    operator()
    row = letter([], RICH, task="shop.rich")
    before = bytes(row.body)

    response = post(client, row)

    assert told(response) == ["Nothing was changed."]
    row.refresh_from_db()
    assert bytes(row.body) == before
    assert not row.events.exists()


def test_each_hint_has_its_field(client, operator):
    operator()
    text = page(client.get(url(letter([], RICH, task="shop.rich"))))

    for shown in (
        'type="number"',
        'type="date"',
        "2026-11-21T12:30:15.123456+07:00",
        "Đỗ &lt;Văn&gt;",
        "SMALL (s)",
        ">blue</option>",
        "&quot;__type__&quot;: &quot;datetime&quot;",
        "list[int]",
        "**more",
        "*rest",
    ):
        assert shown in text
    assert "4111" not in text


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("count", "5", 5),
        ("ratio", "2.5", 2.5),
        ("price", "3.20", Decimal("3.20")),
        ("name", " Ann ", " Ann "),
        ("name", "", ""),
        ("text", "a\r\nb", "a\nb"),
        ("is_gift", "true", True),
        ("when", "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)),
        ("day", "2026-01-02", date(2026, 1, 2)),
        ("key", str(uuid.UUID(int=9)), uuid.UUID(int=9)),
        ("size", "1", "l"),
        ("color", "0", "red"),
        ("anything", "null", None),
        ("anything", '{"a": {"__type__": "decimal", "__value__": "1.5"}}', {"a": Decimal("1.5")}),
        ("lines", "[3]", [3]),
        ("maybe", "4", 4),
    ],
)
def test_a_field_gives_a_value_of_its_kind_and_the_others_stay(client, operator, name, typed, value):
    operator()
    row = letter([], RICH, task="shop.rich")

    assert told(post(client, row, {name: typed})) == ["The arguments were changed."]

    args, kwargs = call(row)
    assert (args, kwargs) == ([], {**RICH, name: value})
    assert type(kwargs[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "typed", "said"),
    [
        ("count", "x", "Enter a whole number."),
        ("count", "", "This field is required."),
        ("when", "now", "Give a time such as 2026-11-21T12:00:00+00:00."),
        ("is_gift", "", "This field is required."),
        ("anything", "{", "This is not JSON: "),
        ("anything", '{"__type__": "decimal", "__value__": "x"}', "This is not JSON: "),
        ("anything", '{"__type__": "base64", "__value__": 5}', "This is not JSON: "),
        ("anything", "[" * 900 + "]" * 900, "This is not JSON: "),
        ("lines", '["a"]', "It has to be of type list[int]."),
        ("lines", "", "This field is required."),
        ("rest", '["a"]', "It has to be of type int."),
        ("rest", "5", "It has to be of type list."),
        ("size", "9", "Select a valid choice."),
    ],
)
def test_what_does_not_fit_is_asked_for_again(client, operator, name, typed, said):
    operator()
    row = letter([], RICH, task="shop.rich")

    response = post(client, row, {name: typed})

    assert said in unescape(page(response))
    assert call(row) == ([], RICH)


def test_a_value_that_is_not_what_its_hint_says_is_edited_as_json(client, operator):
    operator()
    row = letter(["seven"])

    assert "&quot;seven&quot;" in page(client.get(url(row)))
    assert "It has to be of type int." in page(post(client, row, {"order": '"eight"'}))
    assert told(post(client, row, {"order": "8"})) == ["The arguments were changed."]
    assert call(row) == ([8], {})


class TestWhatAnArgumentMayBeInstead:
    def test_left_out(self, client, operator):
        operator()
        row = letter([7], {"retries": 5})

        post(client, row, {"retries": {"how": "default"}})

        assert call(row) == ([7], {})

    def test_given_where_it_was_left_out(self, client, operator):
        operator()
        row = letter([7])

        post(client, row, {"retries": "5", "note": ""})

        assert call(row) == ([7], {"note": "", "retries": 5})

    def test_none(self, client, operator):
        operator()
        row = letter([7, "x"])

        post(client, row, {"note": {"how": "none"}})

        assert call(row) == ([7, None], {})

    def test_who_types_a_value_need_not_say_that_it_is_to_be_one(self, client, operator):
        operator()
        row = letter([7])
        data, names = filled(client, row)

        client.post(url(row), {**data, names["retries"][0]: "5", names["retries"][1]: "default"})

        args, kwargs = call(row)
        assert [*args, *kwargs.values()] == [7, 5]

    def test_a_value_and_another_choice_is_a_contradiction(self, client, operator):
        operator()
        row = letter([7, "x"])
        data, names = filled(client, row)

        response = client.post(url(row), {**data, names["note"][0]: "y", names["note"][1]: "none"})

        assert "A value is given; choose “this value”, or clear the field." in page(response)
        assert call(row) == ([7, "x"], {})


def test_what_fits_nothing_is_shown_and_left_out_when_the_rest_is_saved(client, operator):
    operator()
    row = letter([7, "x", "", 4, "surplus"], {"order": 1})

    assert "Fits nothing that the task takes" in page(client.get(url(row)))
    post(client, row)

    assert call(row) == ([7, "x", "", 4], {})


class TestSecrets:
    CALL = ([7], {"password": "hunter2", "card": {"card_number": "4111", "name": "Ann"}})

    def test_they_are_asterisks_and_stay(self, client, operator):
        operator()
        row = letter(*self.CALL)

        text = page(client.get(url(row)))
        assert HIDDEN in text
        assert "hunter2" not in text
        assert "4111" not in text
        post(client, row, {"more": '{"card": {"card_number": "******** 1", "name": "Bo"}}'})

        assert call(row) == ([7], {"password": "hunter2", "card": {"card_number": "4111", "name": "Bo"}})
        assert "4111" not in row.events.get(kind="edited").note

    @pytest.mark.parametrize("more", ['{"card": {"card_number": "1", "name": "Ann"}}', "{}", '{"api_token": 1}'])
    def test_they_are_not_changed_by_those_who_may_not_see_them(self, client, operator, more):
        operator()
        row = letter(*self.CALL)

        assert "What is hidden" in page(post(client, row, {"more": more}))
        data, names = filled(client, row)
        assert names["password"] == (None, None)
        client.post(url(row), {**data, "argument-2": "hunter3", "how-2": "given"})

        assert call(row) == self.CALL

    def test_others_may_change_and_still_not_see_them(self, client, operator):
        operator("view_sensitive_deadletter")
        row = letter(*self.CALL)

        assert "hunter2" not in page(client.get(url(row)))
        post(client, row, {"password": "hunter3", "more": '{"card": {"card_number": "4222"}}'})

        assert call(row) == ([7], {"password": "hunter3", "card": {"card_number": "4222"}})
        assert not re.search("hunter|4222", row.events.get(kind="edited").note)
        assert not re.search("hunter|4222", LogEntry.objects.get().change_message)

    def test_left_alone_they_stay_for_them_as_well(self, client, operator):
        operator("view_sensitive_deadletter")
        row = letter(*self.CALL)

        post(client, row, {"order": "8"})

        assert call(row) == ([8], self.CALL[1])


class TestWhoMayEditWhat:
    def test_it_needs_its_permission_and_the_one_to_look(self, client, operator):
        row = letter()
        user = operator()
        for missing in ("edit_deadletter", "view_deadletter"):
            user.user_permissions.set(
                Permission.objects.filter(codename__in={"edit_deadletter", "view_deadletter"} - {missing})
            )

            assert client.get(url(row)).status_code == 403
            assert client.post(url(row), {"argument-0": 8}).status_code == 403
        assert call(row) == ([7], {})

    def test_the_button_is_for_those_who_may_and_where_it_makes_sense(self, client, operator):
        operator()
        row = letter()

        assert "../edit/" in page(client.get(f"{LIST}{row.pk}/change/"))
        for status, shown in (("held", True), ("requeued", False), ("recovered", False)):
            DeadLetter.objects.update(status=status)
            assert ("../edit/" in page(client.get(f"{LIST}{row.pk}/change/"))) == shown

    def test_a_task_that_is_not_named_is_not_edited(self, client, operator, settings):
        settings.TASKKIT = {}
        operator()
        row = letter()

        text = page(client.get(url(row)))

        assert "Editing shop.pay is not allowed" in text
        assert "<form method" not in text.partition('id="content"')[2]
        client.post(url(row), {"argument-0": 8, "digest": editing.digest(row)})
        assert call(row) == ([7], {})

    def test_an_argument_that_is_not_named_is_only_shown(self, client, operator, station):
        station.app.tasks["shop.pay"].editable = ("note",)
        operator()
        row = letter([7, "x"])

        _data, names = filled(client, row)

        assert (names["order"], names["note"][0]) == ((None, None), "argument-1")
        assert post(client, row, {"note": "y"}).redirect_chain
        assert call(row) == ([7, "y"], {})

    def test_a_pickled_body_can_be_requeued_but_not_edited(self, client, operator):
        operator()
        row = letter(content_type="application/x-python-serialize")

        assert "It can be requeued, but not edited: content of type" in page(client.get(url(row)))

    def test_a_letter_that_is_not_there_is_not_found(self, client, operator):
        operator()

        assert client.get(f"{LIST}999/edit/").status_code == 404


class TestMeanwhile:
    def test_an_edit_of_what_was_edited_meanwhile_shows_what_it_is_now(self, client, operator):
        operator()
        row = letter()
        data, _names = filled(client, row)
        editing.edit(DeadLetter.objects.get(), [9], {})

        response = client.post(url(row), {**data, "argument-0": "8", "save": "Save"})

        assert told(response) == ["It was changed meanwhile: this is what it is now."]
        assert 'value="9"' in page(response)
        assert call(row) == ([9], {})

    def test_what_was_requeued_meanwhile_is_not_edited(self, client, operator):
        operator()
        row = letter()
        data, _names = filled(client, row)
        DeadLetter.objects.update(status="requeued", requeue_count=1)

        assert "It is requeued, and only what is dead or held is edited." in page(client.post(url(row), data))
        assert call(row) == ([7], {})


def test_text_from_messages_is_escaped(client, operator):
    operator()
    evil = "<script>alert(1)</script></textarea>"
    row = letter([evil, evil, "", 3, evil], {evil: evil})

    text = page(client.get(url(row)))

    assert evil not in text
    assert "<script>alert(1)" not in text


def test_what_is_too_long_for_a_page_or_has_no_json_is_only_shown(client, operator):
    operator()
    row = letter([7], {"note": "x", "text": "x" * 200_000})

    data, names = filled(client, row)
    assert names["more"] == (None, None)
    assert sum(map(len, data.values())) < 1000
    post(client, row, {"order": "8"})

    assert call(row) == ([8], {"note": "x", "text": "x" * 200_000})


@pytest.mark.parametrize("place", ["", "change/", "requeue/", "edit/"])
@pytest.mark.parametrize("task", ["shop.odd", "shop.\ud800"])
def test_names_that_are_no_unicode_are_shown(station, client, operator, place, task):
    """JSON may hold halves of characters, which no page can."""

    @station.app.task(name="shop.odd")
    def odd(order): ...

    operator("requeue_deadletter")
    row = letter([7], {"a\udcff": {"b\udcff": "c\udcff"}}, task="shop.odd", headers={"id": "the-id", "task": task})

    assert client.get(f"{LIST}{row.pk}/{place}", follow=True).status_code == 200


def test_what_is_nested_beyond_reason_is_not_edited(client, operator):
    operator()
    row = letter(body=b'[[7, "x"], {"deep": ' + b"[" * 700 + b"]" * 700 + b"}, {}]")

    assert "nested too deep" in page(client.get(url(row)))


def test_the_page_has_a_name():
    assert reverse("admin:django_taskkit_deadletter_edit", args=[1]) == f"{LIST}1/edit/"
