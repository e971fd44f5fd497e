import json
import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_taskkit.dlq import rows
from django_taskkit.dlq.recovery import Recovery
from django_taskkit.dlq.transfer import importing, portable
from django_taskkit.dlq.transfer.importing import Importer
from django_taskkit.dlq.transfer.portable import UnreadableLineError, letter_in, lines
from django_taskkit.models import DeadLetter, DeadLetterEvent

pytestmark = pytest.mark.django_db

DIED = datetime(2026, 11, 21, 3, 4, 5, 678901, tzinfo=timezone.utc)

NASTY = {
    "id": "x",
    "tenant": "tê\u0301n \U0001f4a5 \x00 \ud800",
    "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    "order": uuid.UUID("12345678123456781234567812345678"),
    "amount": Decimal("12.50"),
    "raw": b"\x00\xff",
    "odd": {"__type__": "no such type", "__value__": 1},
    "deep": [{"a": [1, None, True, 2.5]}],
}


@pytest.fixture
def letter():
    def letter(task_id="x", **columns):
        row = DeadLetter.objects.create(
            **{
                "task_id": task_id,
                "task_name": "shop.tasks.pay",
                "reason": "exception",
                "exception_class": "shop.errors.Tê\U0001f4a5",
                "exception_message": "không \U0001f4a5 \\x00",
                "traceback": "Traceback\n  line\r\n",
                "fingerprint": "f" * 40,
                "attempts": 4,
                "body": bytes(range(256)),
                "content_type": "application/json",
                "content_encoding": "utf-8",
                "headers": NASTY,
                "properties": {"priority": 3, "delivery_mode": 2},
                "queue": "celery",
                "routing_key": "celery",
                "requeue_count": 2,
                "died_at": DIED,
                "root_id": "r",
                "worker": "w@1",
                "release": "1.4",
                **columns,
            }
        )
        row.events.create(kind="died", at=DIED, note="no \U0001f4a5")
        row.events.create(kind="requeued", at=DIED + timedelta(seconds=1), by="alice", generation=1)
        return row

    return letter


def stored():
    """Everything that the tables hold, as the database gives it, without keys and without what an import adds."""

    def rows(model, order, leave_out):
        names = [field.column for field in model._meta.concrete_fields if field.name not in leave_out]
        with connection.cursor() as cursor:
            quoted = ", ".join(map(connection.ops.quote_name, names))
            cursor.execute(f"SELECT {quoted} FROM {model._meta.db_table} ORDER BY {order}")  # noqa: S608
            found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return [{name: bytes(v) if isinstance(v, memoryview) else v for name, v in row.items()} for row in found]

    events = rows(DeadLetterEvent, "dead_letter_id, id", ("id", "dead_letter"))
    return rows(DeadLetter, "task_id", ("id",)), [event for event in events if event["kind"] != "imported"]


def bring_in(texts, **options):
    refused = []
    importer = Importer(by="cli:bob", note="from a.jsonl", refuse=lambda *what: refused.append(what), **options)
    with importer:
        for number, text in enumerate(texts, start=1):
            importer.add(f"line {number}", letter_in(text))
    return importer, refused


def test_what_is_exported_and_imported_is_equal_in_every_column(letter):
    letter("a")
    letter("b", status="held", body=b"", headers={}, properties={}, exception_class="", attempts=1, body_ran=True)
    letter("c", status="requeued", task_name="")
    before = stored()
    texts = list(lines(DeadLetter.objects.all()))
    DeadLetter.objects.all().delete()

    importer, refused = bring_in(texts)

    assert (importer.imported, importer.known, refused) == (3, 0, [])
    assert stored() == before
    row = DeadLetter.objects.get(task_id="a")
    assert row.headers == NASTY
    assert row.envelope.payload is not None


def test_an_import_is_in_the_history_after_what_was_there(letter):
    letter()
    texts = list(lines(DeadLetter.objects.all()))
    DeadLetter.objects.all().delete()

    bring_in(texts)

    events = DeadLetterEvent.objects.order_by("pk").values_list("kind", "by", "generation", "note")
    assert list(events) == [
        ("died", "", 0, "no \U0001f4a5"),
        ("requeued", "alice", 1, ""),
        ("imported", "cli:bob", 2, "from a.jsonl"),
    ]


def test_a_message_that_is_under_way_still_finds_its_row(letter):
    letter(status="requeued", requeue_count=2)
    texts = list(lines(DeadLetter.objects.all()))
    DeadLetter.objects.all().delete()
    bring_in(texts)

    old, new = (Recovery(task_id="x", generation=number, at=DIED, note="") for number in (1, 2))
    assert not rows.recover(old)
    assert rows.recover(new)
    assert DeadLetter.objects.get().status == "recovered"


def test_headers_travel_as_the_text_that_the_table_holds(letter):
    """What only looks like one of kombu's marks would be another thing if it were read and written again."""
    letter(headers='{"a":   {"__type__": "uuid", "__value__": {"bytes": "no"}}}')
    texts = list(lines(DeadLetter.objects.all()))
    DeadLetter.objects.all().delete()

    bring_in(texts)

    assert '"a":   {"__type__"' in stored()[0][0]["headers"]


def test_a_letter_that_is_there_is_left_alone(letter):
    letter()
    texts = list(lines(DeadLetter.objects.all()))
    DeadLetter.objects.update(status="discarded")

    importer, _refused = bring_in([*texts, *texts])

    assert (importer.imported, importer.known) == (0, 2)
    assert DeadLetter.objects.get().status == "discarded"
    assert not DeadLetterEvent.objects.filter(kind="imported").exists()


def test_a_letter_that_comes_twice_is_one_row_however_far_apart(letter, monkeypatch):
    letter()
    texts = list(lines(DeadLetter.objects.all()))
    DeadLetter.objects.all().delete()
    monkeypatch.setattr(importing, "BATCH", 2)

    other = json.dumps({**json.loads(texts[0]), "task_id": "y"})
    importer, _refused = bring_in([texts[0], texts[0], other, texts[0]])

    assert (importer.imported, importer.known) == (2, 2)
    assert DeadLetterEvent.objects.filter(kind="imported").count() == 2


def test_a_dry_run_counts_and_writes_nothing(letter):
    letter()
    text = next(lines(DeadLetter.objects.all()))
    other = json.dumps({**json.loads(text), "task_id": "y"})

    importer, _refused = bring_in([text, other], dry_run=True)

    assert (importer.imported, importer.known) == (1, 1)
    assert DeadLetter.objects.count() == 1


def test_what_the_database_refuses_is_named_and_the_rest_gets_in(letter, monkeypatch):
    from django.db import DataError

    letter()
    text = next(lines(DeadLetter.objects.all()))
    DeadLetter.objects.all().delete()
    texts = [json.dumps({**json.loads(text), "task_id": task_id}) for task_id in "abc"]
    insert = Importer._insert

    def particular(self, letters):
        if any(found.task_id == "b" for found in letters):
            raise DataError("too large")
        insert(self, letters)

    monkeypatch.setattr(Importer, "_insert", particular)
    importer, refused = bring_in(texts)

    assert refused == [("line 2", "the database refuses it: too large")]
    assert (importer.imported, importer.refused) == (2, 1)
    assert set(DeadLetter.objects.values_list("task_id", flat=True)) == {"a", "c"}


def test_export_reads_in_chunks_and_sees_each_row_once(letter, monkeypatch):
    monkeypatch.setattr(portable, "CHUNK", 2)
    monkeypatch.setattr(portable, "CHUNK_BYTES", 300)
    for number in range(7):
        letter(f"{number}")

    found = [json.loads(line)["task_id"] for line in lines(DeadLetter.objects.order_by("-died_at"))]

    assert found == [str(number) for number in range(7)]


def test_export_leaves_out_what_dies_meanwhile_and_what_no_longer_matches(letter, monkeypatch):
    monkeypatch.setattr(portable, "CHUNK", 1)
    for number in range(3):
        letter(f"{number}")
    found = lines(DeadLetter.objects.filter(status="dead"))
    first = next(found)
    DeadLetter.objects.filter(task_id="1").update(status="requeued")
    letter("late")

    assert [json.loads(line)["task_id"] for line in [first, *found]] == ["0", "2"]


def test_export_asks_no_more_for_many_than_for_few(letter):
    for number in range(20):
        letter(f"{number}")

    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert len(list(lines(DeadLetter.objects.all()))) == 20

    assert len(queries) <= 4


def test_times_travel_in_utc_and_arrive_as_the_project_has_them(letter, settings):
    letter()
    text = next(lines(DeadLetter.objects.all()))
    assert json.loads(text)["died_at"] == "2026-11-21T03:04:05.678901+00:00"

    settings.USE_TZ = False
    settings.TIME_ZONE = "Asia/Taipei"

    assert letter_in(text).columns["died_at"] == datetime(2026, 11, 21, 11, 4, 5, 678901)


class TestALine:
    @pytest.fixture
    def facts(self, letter):
        letter()
        return json.loads(next(lines(DeadLetter.objects.all())))

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"format": 2}, "its format is 2, and this release reads 1"),
            ({"format": True}, "its format is True"),
            ({"task_id": ""}, "its 'task_id' is empty"),
            ({"task_id": 7}, "'task_id' is 7, and has to be a text"),
            ({"status": "lost"}, "'status' is 'lost', which this release does not know"),
            ({"reason": "lost"}, "'reason' is 'lost'"),
            ({"died_at": "yesterday"}, "'died_at' is 'yesterday', and has to be a time with its zone"),
            ({"died_at": "2026-11-21T03:00:00"}, "and has to be a time with its zone"),
            ({"died_at": "2026-13-41T03:00:00Z"}, "'died_at' is '2026-13-41T03:00:00Z': "),
            ({"died_at": "0001-01-01T00:00:00+14:00"}, "'died_at' "),
            ({"attempts": -1}, "'attempts' is -1, and has to be a whole number"),
            ({"attempts": 1 << 31}, "'attempts' is 2147483648"),
            ({"attempts": True}, "'attempts' is True"),
            ({"body_ran": 1}, "'body_ran' is 1, and has to be true or false"),
            ({"body": "not base64!"}, "'body' is not base64"),
            ({"body": None}, "'body' is None"),
            ({"headers": {"id": "x"}}, "'headers' is {'id': 'x'}, and has to be a text"),
            ({"headers": "[]"}, "'headers' is not a JSON object"),
            ({"headers": "{"}, "'headers' is not JSON"),
            ({"headers": "[" * 100_000}, "'headers' "),
            ({"colour": "red"}, "'colour' is not known to this release"),
            ({"events": {}}, "its 'events' are no list"),
            ({"events": ["died"]}, "event 1: it is no object"),
            ({"events": [{"kind": "born", "at": "2026-11-21T03:00:00Z"}]}, "event 1: 'kind' is 'born'"),
            ({"events": [{"kind": "died"}]}, "event 1: it has no 'at'"),
        ],
    )
    def test_that_makes_no_sense_is_refused_with_its_value(self, facts, change, complaint):
        with pytest.raises(UnreadableLineError) as refusal:
            letter_in(json.dumps({**facts, **change}))

        assert complaint in str(refusal.value)

    @pytest.mark.parametrize("name", ["task_id", "died_at", "reason", "body"])
    def test_that_lacks_what_it_needs_is_refused(self, facts, name):
        del facts[name]

        with pytest.raises(UnreadableLineError, match=f"it has no '{name}'"):
            letter_in(json.dumps(facts))

    @pytest.mark.parametrize("line", [b"", b"{", b"\xff\xfe", b"[]", b"42", b"{}", b'"text"', b"[" * 100_000, b"NaN"])
    def test_that_is_none_is_refused(self, line):
        with pytest.raises(UnreadableLineError):
            letter_in(line)

    def test_may_lack_what_has_a_default(self, facts):
        for name in ("status", "body_ran", "requeue_count", "events", "worker"):
            del facts[name]

        letter = letter_in(json.dumps(facts))

        row = DeadLetter(**letter.columns)
        assert (row.status, row.body_ran, row.requeue_count, row.worker) == ("dead", False, 0, "")

    def test_has_its_texts_bounded_to_their_columns(self, facts):
        nasty = "\x00\ud800" + "x" * 300
        letter = letter_in(json.dumps({**facts, "worker": nasty, "traceback": nasty, "task_id": nasty}))

        assert len(letter.columns["worker"]) == len(letter.task_id) == 255
        assert letter.columns["worker"].startswith("\\x00\\ud800xxx")
        assert letter.columns["traceback"] == "\\x00\\ud800" + "x" * 300

    def test_has_headers_in_ascii_whoever_wrote_them(self, facts):
        letter = letter_in(json.dumps({**facts, "headers": '{"tên": "\U0001f4a5"}'}))

        assert letter.columns["headers"] == '{"t\\u00ean": "\\ud83d\\udca5"}'

    def test_is_never_unpickled(self, facts, tmp_path):
        import base64
        import pickle

        class Bomb:
            def __reduce__(self):
                return (open, (str(tmp_path / "exploded"), "w"))

        body = base64.b64encode(pickle.dumps(Bomb())).decode()
        bring_in(
            [json.dumps({**facts, "task_id": "p", "body": body, "content_type": "application/x-python-serialize"})]
        )

        assert DeadLetter.objects.filter(task_id="p").exists()
        assert not (tmp_path / "exploded").exists()
