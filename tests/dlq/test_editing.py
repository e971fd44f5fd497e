"""Other arguments in a dead letter, and nothing else of it changed."""

import enum
import json
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, ClassVar, Literal, Optional

import pytest
from celery import chain, signature
from django.contrib.auth import get_user_model
from kombu.serialization import dumps

from django_taskkit.dlq import requeue
from django_taskkit.dlq.calls import gathered, same, signature_of, spread
from django_taskkit.dlq.editing import ChangedMeanwhileError, EditRefusedError, call_of, digest, edit
from django_taskkit.dlq.hiding import Hidden, SecretError
from django_taskkit.dlq.hints import fits
from django_taskkit.exceptions import TaskkitError
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=7)))
RICH = {"when": NOW, "day": date(2026, 11, 21), "price": Decimal("1.50"), "id": uuid.UUID(int=7), "raw": b"\xff"}


@pytest.fixture(autouse=True)
def _editable(settings):
    settings.TASKKIT = {"EDITABLE": ["shop.*"]}


@pytest.fixture
def ran(station):
    """What ran, in order; ``shop.pay`` fails for anything but whole numbers."""
    done = []

    @station.app.task(name="shop.pay")
    def pay(order: int, note: str = "", password: str = "", **more: Any) -> int:
        if not isinstance(order, int):
            raise TypeError("not an order")
        done.append(("pay", order, note))
        return order

    @station.app.task(name="shop.thank")
    def thank(order):
        done.append(("thank", order))

    return done


@pytest.fixture
def letter(station, ran):
    """Make a letter of ``shop.pay`` by letting it die."""

    def letter(*args, serializer="json", **kwargs):
        task = station.app.tasks["shop.pay"]
        links = chain(task.s(*args, **kwargs), signature("shop.thank", app=station.app))
        links.apply_async(serializer=serializer, headers={"tenant": "t1"}, priority=3)
        station.run_next()
        return DeadLetter.objects.get()

    return letter


def body(row):
    return json.loads(bytes(row.body))


def test_an_edited_task_runs_with_its_new_arguments_and_its_chain_goes_on(station, ran, letter):
    row = letter("seven", note="x")

    edit(row, [7], {"note": "x"}, by="ann")
    requeue(row)
    station.run_all()

    assert ran == [("pay", 7, "x"), ("thank", 7)]
    row.refresh_from_db()
    assert row.status == "recovered"


def test_only_the_arguments_and_their_description_change(letter):
    row = letter("seven", **RICH)
    before, headers, raw = bytes(row.body), row.headers, body(row)

    edit(row, [7], row.envelope.payload()[1])

    row.refresh_from_db()
    assert bytes(row.body) == before.replace(b'["seven"]', b"[7]", 1)
    assert body(row) == [[7], *raw[1:]]
    assert row.headers.pop("argsrepr") == "(7,)"
    assert headers.pop("argsrepr") == "('seven',)"
    assert row.headers == headers
    assert (row.status, row.requeue_count, row.properties["priority"]) == ("dead", 0, 3)


@pytest.mark.parametrize("serializer", ["json", "yaml", "msgpack"])
def test_what_is_not_edited_keeps_its_kind(station, letter, serializer):
    pytest.importorskip(serializer)
    kwargs = {"tiny": 1e-300, "list": [1, 1.0, True, None], "text": "ü"}
    if serializer != "msgpack":  # which has no such kinds
        kwargs |= {"when": NOW, "day": date(2026, 11, 21), "big": 2**70}
    content_type, encoding, written = dumps(([0], kwargs, {"chain": None}), serializer=serializer)
    written = written.encode() if isinstance(written, str) else written
    row = letter("seven")
    DeadLetter.objects.update(body=written, content_type=content_type, content_encoding=encoding)
    row.refresh_from_db()
    kwargs = row.envelope.payload()[1]

    edit(row, [7], kwargs)

    row.refresh_from_db()
    args, after, embed = row.envelope.payload()
    assert (args, embed) == ([7], {"chain": None})
    assert same(after, kwargs)
    assert {name: type(value) for name, value in after.items()} == {name: type(value) for name, value in kwargs.items()}


def test_it_is_in_the_history_with_who_why_and_what_secrets_hidden(letter):
    row = letter("seven", password="hunter2", card={"card_number": "4111", "name": "Ann"})
    user = get_user_model().objects.create_user("ann")

    done = edit(
        row, [7, "n"], {"password": "hunter3", "card": {"card_number": "4112", "name": "Bo"}}, by=user, note="typo"
    )

    event = row.events.get(kind="edited")
    assert (event.by, event.generation) == ("ann", 0)
    assert event.note.splitlines() == [
        "typo",
        'order: "seven" → 7',
        "password: ******** → ******** (changed where it is hidden)",
        'more: {"card": {"card_number": "********", "name": "Ann"}} '
        '→ {"card": {"card_number": "********", "name": "Bo"}}',
        'note: (none) → "n"',
    ]
    assert [change.name for change in done.changes] == ["order", "password", "more", "note"]


def test_a_name_that_no_database_takes_is_told_in_another_way(station, letter):
    """The admin's log is written after the edit, and must not fail for what the sender put into a message."""

    @station.app.task(name="shop.two")
    def two(order): ...

    row = letter("seven")
    row.headers = {**row.headers, "task": "shop.two"}
    row.body = json.dumps([[7], {"a\x00\ud800" + "b" * 1000: 1}, {}]).encode()
    row.save()

    told = str(edit(row, [7], {}))

    assert told.startswith("a\\x00\\ud800bbb")
    assert len(told) < 1000
    assert told.endswith(": 1 → (none)")


def test_an_edit_that_changes_nothing_does_nothing(letter):
    row = letter("seven")
    before = bytes(row.body)

    assert edit(row, ["seven"], {}).changes == ()

    row.refresh_from_db()
    assert bytes(row.body) == before
    assert not row.events.filter(kind="edited").exists()


@pytest.mark.parametrize(
    ("args", "kwargs", "why"),
    [
        ([], {}, "The arguments don't fit the task: missing a required argument: 'order'."),
        ([1, "", "", 4], {}, "The arguments don't fit the task: too many positional arguments."),
        (["eight"], {}, "order: It has to be of type int."),
        ([True], {}, "order: It has to be of type int."),
        ([7], {"note": 5}, "note: It has to be of type str."),
        ([7], {"more": {1, 2}}, "The message's format has no place for a value: "),
    ],
)
def test_what_does_not_fit_is_refused(letter, args, kwargs, why):
    row = letter("seven")

    with pytest.raises(EditRefusedError) as caught:
        edit(row, args, kwargs)

    assert str(caught.value).startswith(why)
    assert isinstance(caught.value, TaskkitError)
    assert body(DeadLetter.objects.get())[0] == ["seven"]


def test_arguments_that_did_not_fit_can_be_made_to(station, ran, letter):
    row = letter("seven")
    raw = json.loads(bytes(row.body))
    DeadLetter.objects.update(body=json.dumps([["seven", "", "", 4], {"order": 1}, raw[2]]).encode())
    row.refresh_from_db()

    edit(row, [7], {})
    requeue(row)
    station.run_all()

    assert ran[0] == ("pay", 7, "")
    assert "4: 4 → (none)" in row.events.get(kind="edited").note
    assert "order*: 1 → (none)" in row.events.get(kind="edited").note


class TestWhatMayBeEdited:
    def why(self, row):
        with pytest.raises(EditRefusedError) as caught:
            call_of(row)
        with pytest.raises(EditRefusedError):
            edit(row, [7], {})
        return str(caught.value)

    def test_by_default_nothing(self, letter, settings):
        settings.TASKKIT = {}

        assert self.why(letter("seven")) == (
            "Editing shop.pay is not allowed: add its name to TASKKIT['EDITABLE'], or editable=True to the task."
        )

    def test_a_task_says_so_itself(self, station, letter, settings):
        row = letter("seven")
        station.app.tasks["shop.pay"].editable = False

        assert "not allowed" in self.why(row)

        settings.TASKKIT = {}
        station.app.tasks["shop.pay"].editable = True
        assert edit(row, [7], {}).changes

    def test_a_task_names_the_arguments(self, station, letter):
        row = letter("seven", note="x")
        station.app.tasks["shop.pay"].editable = ("note",)

        with pytest.raises(EditRefusedError, match=r"The argument order may not be edited\."):
            edit(row, [7], {"note": "x"})
        assert edit(row, ["seven"], {"note": "y"}).changes

    @pytest.mark.parametrize("status", ["requeued", "recovered", "discarded"])
    def test_what_is_not_dead_or_held_is_not(self, letter, status):
        row = letter("seven")
        row.status = status

        assert self.why(row) == f"It is {status}, and only what is dead or held is edited."

    def test_a_held_one_is(self, letter):
        row = letter("seven")
        DeadLetter.objects.update(status="held")
        row.refresh_from_db()

        edit(row, [7], {})

        assert DeadLetter.objects.get().status == "held"

    def test_a_pickled_body_is_not(self, letter):
        row = letter("seven", serializer="pickle")

        assert self.why(row) == (
            "It can be requeued, but not edited: "
            "content of type 'application/x-python-serialize' is not decoded for display."
        )

    def test_a_message_without_an_id_is_not_since_its_row_would_no_longer_match(self, letter):
        row = letter("seven")
        row.headers = {**row.headers, "id": None}

        assert "It has no task id" in self.why(row)

    def test_a_task_that_is_not_known_here_is_not(self, letter):
        row = letter("seven")
        row.headers = {**row.headers, "task": "shop.gone"}

        assert self.why(row) == "The task shop.gone is not known here, so what it takes can't be checked."

    @pytest.mark.parametrize("text", ["42", "[]", "[{}, [], {}]", '[[], {}, "x"]', "nonsense"])
    def test_what_is_not_shaped_like_a_call_is_not(self, letter, text):
        row = letter("seven")
        row.body = text.encode()

        self.why(row)


def test_models_of_pydantic_are_data_and_are_not_made(station, letter):
    pydantic = pytest.importorskip("pydantic")
    row = letter("seven")

    class Order(pydantic.BaseModel):
        number: int

        def model_post_init(self, context):
            raise AssertionError("it was made")

    @station.app.task(name="shop.modelled", pydantic=True)
    def modelled(order: Order, /): ...

    row.headers = {**row.headers, "task": "shop.modelled"}

    edit(row, [{"number": 7}], {})

    assert body(DeadLetter.objects.get())[0] == [{"number": 7}]


class TestTwoAtOnce:
    def test_the_second_edit_is_refused(self, letter):
        row = letter("seven")
        other = DeadLetter.objects.get()

        edit(row, [7], {})
        with pytest.raises(ChangedMeanwhileError, match="changed meanwhile"):
            edit(other, [8], {})

        assert body(DeadLetter.objects.get())[0] == [7]
        assert row.events.filter(kind="edited").count() == 1

    @pytest.mark.parametrize("meanwhile", [{"status": "discarded"}, {"requeue_count": 1}, {"status": "requeued"}])
    def test_so_is_an_edit_of_what_was_moved_on_meanwhile(self, letter, meanwhile):
        row = letter("seven")
        DeadLetter.objects.update(**meanwhile)

        with pytest.raises(ChangedMeanwhileError):
            edit(row, [7], {})

        assert body(DeadLetter.objects.get())[0] == ["seven"]

    def test_the_same_row_can_be_edited_again(self, letter):
        row = letter("seven")
        first = digest(row)

        edit(row, [7], {})
        assert digest(row) != first
        edit(row, [8], {})

        row.refresh_from_db()
        assert body(row)[0] == [8]


def test_a_description_that_the_sender_gave_is_not_replaced_by_what_it_hid(station, letter):
    row = letter("seven")
    row.headers = {**row.headers, "argsrepr": "(<order>,)", "kwargsrepr": "<hidden>"}

    edit(row, [7], {})

    assert (row.headers["argsrepr"], row.headers["kwargsrepr"]) == ("(edited)", "<hidden>")


class TestHowACallIsPutTogether:
    @pytest.fixture
    def called(self, station):
        @station.app.task(name="shop.odd")
        def odd(first, /, second, third=3, *rest, only, other=5, **more): ...

        return signature_of(odd)

    @pytest.mark.parametrize(
        ("args", "kwargs"),
        [
            ([1, 2], {"only": 4}),
            ([1], {"only": 4, "second": 2}),
            ([1, 2, 3, 9, 9], {"more": 1, "only": 4}),
            ([1, 2], {"first": "another", "only": 4}),
            ([1], {"third": 8, "second": 2, "only": 4, "other": 6}),
        ],
    )
    def test_what_was_given_by_position_stays_so(self, called, args, kwargs):
        values = spread(called, args, kwargs).values

        assert gathered(called, values, args, kwargs) == (args, kwargs)
        assert list(gathered(called, values, args, kwargs)[1]) == list(kwargs)

    def test_what_is_new_is_given_by_name(self, called):
        assert gathered(called, {"first": 1, "second": 2, "third": 4, "only": 0}, [1, 2], {"only": 0}) == (
            [1, 2],
            {"third": 4, "only": 0},
        )

    def test_what_is_before_the_rest_is_given_by_position(self, called):
        assert gathered(called, {"first": 1, "second": 2, "rest": [7], "only": 0}, [1], {"second": 2, "only": 0}) == (
            [1, 2, 3, 7],
            {"only": 0},
        )

    def test_what_fits_nothing_is_told(self, station):
        @station.app.task(name="shop.two")
        def two(a, b=2): ...

        found = spread(signature_of(two), [1, 2, 3], {"b": 4, "c": 5})

        assert found.values == {"a": 1, "b": 2}
        assert found.surplus == {"3": 3, "b": 4, "c": 5}
        assert found.by_name() == {"a": 1, "b": 2, "3": 3, "b*": 4, "c": 5}


class Size(enum.Enum):
    SMALL = "s"


class Unknown:
    pass


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [1], [True, 1.0, "1", None]),
        (float, [1, 1.5], [True, "1"]),
        (bool, [True], [1]),
        (str, ["x"], [1, None]),
        (Optional[int], [None, 1], ["1"]),  # noqa: UP045 (as older code has it)
        (int | str, [1, "1"], [None, 1.5]),
        (Literal["a", 1], ["a", 1], ["b", True]),
        (Size, ["s"], ["S", 1]),
        (list[int], [[], [1]], [["1"], 1, "ab"]),
        (dict[str, list[int]], [{}, {"a": [1]}], [{"a": ["1"]}, []]),
        (tuple[int, str], [[1, "a"]], [[1], ["a", 1]]),
        (tuple[int, ...], [[], [1, 2]], [["a"]]),
        (datetime, [NOW, "2026-11-21T12:00:00Z"], ["now", 5]),
        (date, ["2026-11-21"], ["x"]),
        (Decimal, [Decimal(1), "1.5", 1], ["x", None, True]),
        (uuid.UUID, [uuid.UUID(int=1), str(uuid.UUID(int=1))], ["x", 1]),
        (None, [None], [0]),
        (Any, [None, 1], []),
        (Unknown, [{}, 1], []),
    ],
)
def test_a_hint_is_taken_as_json_has_it(hint, good, bad):
    assert [fits(value, hint) for value in good] == [True] * len(good)
    assert [fits(value, hint) for value in bad] == [False] * len(bad)


class TestSecretsWithinAnArgument:
    VALUE: ClassVar = {"cards": [{"card_number": "4111", "name": "Ann"}, {"card_number": "4222", "name": "Bo"}], "n": 1}

    @pytest.fixture
    def hidden(self):
        return Hidden(self.VALUE, ["card_number"])

    def test_they_are_marks(self, hidden):
        assert "4111" not in str(hidden.shown)
        assert hidden.shown["cards"][1] == {"card_number": "******** 2", "name": "Bo"}

    def test_they_come_back_wherever_their_mark_stays(self, hidden):
        edited = {"cards": list(reversed(hidden.shown["cards"])), "n": 2}

        restored = hidden.restored(edited, may_change=False)

        assert restored == {"cards": list(reversed(self.VALUE["cards"])), "n": 2}

    def test_they_never_come_back_where_everyone_would_see_them(self, hidden):
        with pytest.raises(SecretError, match="can only stay under a name that tells a secret"):
            hidden.restored({"name": "******** 1"}, may_change=True)

    @pytest.mark.parametrize("number", ["4333", "******** 1"])
    def test_changing_them_is_for_those_who_may_see_them(self, hidden, number):
        edited = {"cards": [*hidden.shown["cards"], {"card_number": number}]}

        with pytest.raises(SecretError):
            hidden.restored(edited, may_change=False)
        assert len(hidden.restored(edited, may_change=True)["cards"]) == 3

    def test_taking_them_out_as_well(self, hidden):
        with pytest.raises(SecretError):
            hidden.restored({"cards": []}, may_change=False)
        assert hidden.restored({"cards": []}, may_change=True) == {"cards": []}

    def test_a_mark_that_was_made_up_stands_for_nothing(self, hidden):
        with pytest.raises(SecretError, match="stands for nothing"):
            hidden.restored({"card_number": "******** 9"}, may_change=True)
