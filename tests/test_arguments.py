"""What should not travel in a message: how it is told, named and remedied; nothing is fetched to tell."""

import asyncio
import collections
import dataclasses
import datetime
import decimal
import io
import socket
import sqlite3
import tempfile
import threading
import uuid

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, connections
from django.db.models import Model
from django.db.models.fields.files import FieldFile, FileField
from django.test import AsyncRequestFactory, RequestFactory
from django.utils.functional import LazyObject, SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from kombu import serialization
from kombu.utils import json as kombu_json

from django_taskkit.arguments import may_be_unsafe, unsafe

SERIALIZERS = ("json", "pickle")


class Untouched(LazyObject):
    def _setup(self):
        raise AssertionError("a lazy object was evaluated")


def saved(cls, **fields):
    row = cls(**fields)
    row._state.adding = False
    return row


def found(value, serializer="json"):
    """What is said of `value`, given as ``thing=``."""
    assert may_be_unsafe((), {"thing": value}, None)
    return unsafe((), {"thing": value}, serializer)


REFUSED = {
    "a row": (lambda: saved(User, pk=7), "an instance of the model auth.User", "pass thing.pk and fetch the row"),
    "a row that is not saved": (
        lambda: User(username="ada"),
        "an unsaved instance of the model auth.User",
        "save it first, then pass thing.pk",
    ),
    "a queryset": (
        lambda: Group.objects.all(),
        "a queryset of auth.Group",
        "pass a list of primary keys: list(thing.values_list('pk', flat=True))",
    ),
    "a raw queryset": (lambda: Group.objects.raw("SELECT 1"), "a raw queryset of auth.Group", "[row.pk for row in"),
    "a manager": (lambda: Group.objects, "a manager of auth.Group", "values_list('pk', flat=True)"),
    "a related manager": (lambda: saved(User, pk=7).groups, "a manager of auth.Group", "values_list('pk', flat=True)"),
    "a lazy object": (Untouched, "a lazy object, such as request.user", "such as thing.pk"),
    "a request": (lambda: RequestFactory().get("/"), "a request", "such as thing.user.pk"),
    "an ASGI request": (lambda: AsyncRequestFactory().get("/"), "a request", "such as thing.user.pk"),
    "an open file": (lambda: open(__file__), "an open file", "pass its path"),  # noqa: SIM115 (closed when collected)
    "an open binary file": (lambda: open(__file__, "rb"), "an open file", "pass its path"),  # noqa: SIM115
    "a named temporary file": (tempfile.NamedTemporaryFile, "a file", "pass its path"),
    "a file of a model": (
        lambda: FieldFile(None, FileField(), "a.txt"),
        "the file of a model's field",
        "pass the primary key of its row, or thing.name",
    ),
    "an uploaded file": (lambda: SimpleUploadedFile("a", b""), "an uploaded file", "store it first"),
    "a file in memory": (lambda: ContentFile(b"a"), "a file", "store it first"),
    "a connection": (lambda: connection, "a connection or cursor", "pass the alias"),
    "a connection itself": (lambda: connections["default"], "a connection or cursor", "pass the alias"),
    "a cursor of a driver": (
        lambda: sqlite3.connect(":memory:").cursor(),
        "a connection or cursor",
        "or the rows as a list",
    ),
    "a generator": (lambda: (n for n in ()), "an iterator or a view", "list(thing)"),
    "a view of a dict": (lambda: {}.keys(), "an iterator or a view", "list(thing)"),
    "a future": (lambda: asyncio.Future(loop=asyncio.new_event_loop()), "something to be awaited", "await it first"),
    "a lock": (threading.Lock, "something of this process alone", "plain values"),
    "a socket": (socket.socket, "something of this process alone", "plain values"),
}


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize(("make", "what", "remedy"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_refuses(make, what, remedy, serializer):
    problem = found(make(), serializer)

    assert problem.where == "thing"
    assert problem.what.startswith(what)
    assert remedy in problem.remedy


LIBRARIES = {
    "rest_framework.request": (
        lambda module: module.Request(RequestFactory().get("/")),
        "a request",
    ),
    "redis": (lambda module: module.Redis(), "a connection or cursor"),
    "redis.asyncio": (lambda module: module.Redis(), "a connection or cursor"),
    "psycopg": (lambda module: module.Connection.__new__(module.Connection), "a connection or cursor"),
    "pymysql": (lambda module: module.connections.Connection(defer_connect=True), "a connection or cursor"),
    "pymysql.cursors": (lambda module: module.DictCursor(None), "a connection or cursor"),
}


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize(("name", "make", "what"), [(name, *case) for name, case in LIBRARIES.items()], ids=LIBRARIES)
def test_refuses_what_other_libraries_make(name, make, what, serializer):
    module = pytest.importorskip(name)

    assert found(make(module), serializer).what == what


class Point(collections.namedtuple("Point", "x y")):
    pass


class Odd:
    """Known to nobody: whether it travels is for the serializer to say."""


PASSES = {
    "plain data": (1, 2.5, True, None, "text", b"bytes", [1, {"a": (2, {3})}]),
    "kombu's own types": (uuid.uuid4(), decimal.Decimal("1.5"), datetime.date.today(), datetime.datetime.now()),
    "texts of other classes": (mark_safe("<b>"), "a" * 10_000),
    "tuples with names": (Point(1, [2]),),
    "a visitor without an account": (AnonymousUser(),),
    "bytes in memory": (io.BytesIO(b"a"), io.StringIO("a")),
    "a class, a function": (User, len),
    "what nobody knows": (Odd(), Exception("no"), range(3)),
    "other containers": (collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]), collections.deque([1])),
}


@pytest.mark.parametrize("values", PASSES.values(), ids=PASSES)
def test_passes_without_a_second_look(values):
    assert not may_be_unsafe(values, {"values": values}, None)


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("values", PASSES.values(), ids=PASSES)
def test_passes(values, serializer):
    assert unsafe(values, {"values": values}, serializer) is None


PLACES = {
    "argument 1": ((User(),), {}, ()),
    "argument 2": ((1, User()), {}, ()),
    "argument 2 (order)": ((1, User()), {}, ("count", "order")),
    "argument 1, at [3]['order']": (([0, 1, 2, {"order": User()}],), {}, ()),
    "argument 1 (items[3]['order'])": (([0, 1, 2, {"order": User()}],), {}, ("items",)),
    "order": ((), {"order": User()}, ()),
    "items[3]['order']": ((), {"items": [0, 1, 2, {"order": User()}]}, ()),
    "items[0][1]": ((), {"items": ((1, User()),)}, ()),
    "items[7]": ((), {"items": {7: User()}}, ()),
    "items[<Odd>]": ((), {"items": {Odd(): User()}}, ()),
    "items[<str>]": ((), {"items": {"x" * 80: User()}}, ()),
    "items (a key)": ((), {"items": {saved(User, pk=1): 1}}, ()),
    "items (in the set)": ((), {"items": {saved(User, pk=1)}}, ()),
    "items[0] (in the set)": ((), {"items": [frozenset({saved(User, pk=1)})]}, ()),
    "items[0].y": ((), {"items": [dataclasses.make_dataclass("Pair", "xy")(1, User())]}, ()),
    "items['a']": ((), {"items": collections.OrderedDict(a=User())}, ()),
    "items[1]": ((), {"items": collections.deque([1, User()])}, ()),
    "items['a'][0]": ((), {"items": collections.defaultdict(list, a=[User()])}, ()),
}


@pytest.mark.parametrize(("where", "call"), PLACES.items(), ids=PLACES)
def test_says_where_it_is(where, call):
    args, kwargs, names = call

    assert may_be_unsafe(args, kwargs)
    assert unsafe(args, kwargs, "pickle", names).where == where


def test_the_remedy_names_what_is_passed_as_the_call_names_it():
    assert unsafe((saved(User, pk=1),), {}, "json", ("buyer",)).remedy.startswith("pass buyer.pk")
    assert unsafe((saved(User, pk=1),), {}, "json").remedy.startswith("pass user.pk")
    assert unsafe((), {"items": [{"a": saved(User, pk=1)}]}, "json").remedy.startswith("pass items[0]['a'].pk")
    assert unsafe((), {"items": {saved(User, pk=1)}}, "json").remedy.startswith("pass user.pk")


def test_the_key_of_a_row_is_not_told_since_it_may_be_a_secret():
    from django.contrib.sessions.models import Session

    problem = found(saved(Session, session_key="hunter2"))

    assert "hunter2" not in f"{problem.what} {problem.where} {problem.remedy}"


class TestNothingIsFetched:
    def test_no_query_is_made_and_no_repr_called(self):
        # No test database is asked for: a query would fail the test.
        class Loud(list):
            def __repr__(self):
                raise AssertionError("repr was called")

            def __iter__(self):
                raise AssertionError("a container's own method was called")

        values = Loud([Group.objects.filter(name="x"), Untouched()])

        assert may_be_unsafe((values,), {})
        assert unsafe((values,), {}, "pickle").where == "argument 1, at [0]"

    def test_deferred_fields_and_relations_stay_so(self):
        row = User.from_db("default", ["id"], [7])

        assert found(row).what == "an instance of the model auth.User"
        assert set(vars(row)) == {"_state", "id"}

    def test_a_lazy_object_that_was_evaluated_is_named_after_what_it_is(self):
        user = SimpleLazyObject(lambda: saved(User, pk=1))
        assert user.pk == 1

        assert unsafe((user,), {}, "json").remedy.endswith("user.pk")

    def test_a_property_of_a_dataclass_is_not_run(self):
        @dataclasses.dataclass
        class Holder:
            row: object

            @property
            def trap(self):
                raise AssertionError("a property was run")

        assert unsafe((Holder(User()),), {}, "pickle").where == "argument 1, at .row"


@pytest.mark.parametrize("values", [Group.objects.values_list("pk", flat=True), Group.objects.values("name")])
def test_a_queryset_of_plain_values_is_to_become_a_list_of_them(values):
    problem = unsafe((), {"ids": values}, "json")

    assert problem.what == "a queryset of auth.Group"
    assert problem.remedy == "pass a list: list(ids)"


def test_what_a_dataclass_leaves_behind_when_it_is_pickled_does_not_travel():
    @dataclasses.dataclass
    class Batch:
        numbers: list
        lock: object

        def __getstate__(self):
            return {"numbers": self.numbers}

    @dataclasses.dataclass
    class Reduced:
        row: object

        def __reduce__(self):
            return dict, ()

    assert unsafe((Batch([1], threading.Lock()), Reduced(User())), {}, "pickle") is None


def test_a_dataclass_with_slots_is_looked_into_as_any_other():
    @dataclasses.dataclass(frozen=True, slots=True)
    class Slotted:
        row: object

    assert unsafe((Slotted(User()),), {}, "pickle").where == "argument 1, at .row"


class TestLazyTexts:
    def test_kombus_json_makes_a_text_of_them_in_the_language_of_the_caller(self):
        assert unsafe((gettext_lazy("yes"),), {}, "json") is None

    def test_pickle_would_have_the_worker_translate_them(self):
        problem = unsafe((), {"subject": gettext_lazy("yes")}, "pickle")

        assert problem.what.startswith("a lazy text")
        assert problem.remedy == "pass str(subject)"


class TestWhatAProjectHasTaughtItsSerializer:
    @pytest.fixture
    def rows_as_json(self):
        kombu_json.register_type(Model, "row", lambda row: [row._meta.label, row.pk], tuple)
        yield
        del kombu_json._encoders[Model], kombu_json._decoders["row"]

    def test_a_registered_type_passes_as_json(self, rows_as_json):
        assert unsafe((saved(User, pk=1), [{"a": Group()}]), {}, "json") is None
        assert unsafe((saved(User, pk=1),), {}, "pickle") is not None

    def test_what_is_behind_a_type_that_passes_is_still_found(self, rows_as_json):
        assert unsafe(([saved(User, pk=1), Group.objects.all()],), {}, "json").where == "argument 1, at [1]"

    def test_a_lazy_object_passes_if_it_may_be_of_a_registered_type(self, rows_as_json):
        assert unsafe((Untouched(),), {}, "json") is None

    def test_an_object_that_knows_its_json_passes(self):
        class Known(ContentFile):
            def __json__(self):
                return self.read()

        assert unsafe((Known(b"a"),), {}, "json") is None
        assert unsafe((Known(b"a"),), {}, "pickle") is not None

    def test_a_serializer_of_the_projects_own_is_not_second_guessed(self):
        serialization.register("rows", lambda data: "", lambda data: (), "application/x-rows")
        try:
            assert unsafe((User(),), {}, "rows") is None
        finally:
            serialization.unregister("rows")

    def test_nor_is_one_that_has_taken_the_name_of_kombus(self):
        serialization.register("json", lambda data: "", lambda data: (), "application/json")
        try:
            assert unsafe((User(),), {}, "json") is None
        finally:
            serialization.register_json()
        assert unsafe((User(),), {}, "json") is not None

    def test_a_pydantic_model_passes(self):
        pydantic = pytest.importorskip("pydantic")
        order = pydantic.create_model("Order", number=(int, 1))()

        assert not may_be_unsafe((order,), {"order": [order]})


class TestBounds:
    def test_a_value_that_contains_itself_is_walked_once(self):
        ring: list = [1]
        ring.append({"again": ring})

        assert not may_be_unsafe((ring,), {})
        assert unsafe((ring,), {}, "pickle") is None

        ring.append(User())
        assert may_be_unsafe((ring,), {})
        assert unsafe((ring,), {}, "pickle").where == "argument 1, at [2]"

    def test_a_deep_value_needs_no_deep_stack(self):
        deep: list = [User()]
        for _ in range(100_000):
            deep = [deep]

        assert may_be_unsafe((deep,), {})
        assert unsafe((deep,), {}, "pickle").where.endswith("[0]")
        while deep:  # or the interpreter takes it apart by recursion
            deep = deep[0] if isinstance(deep[0], list) else []

    def test_the_last_of_many_is_found(self):
        many = [{"number": number} for number in range(10_000)]
        many[-1]["row"] = User()

        assert unsafe((many,), {}, "json").where == "argument 1, at [9999]['row']"
