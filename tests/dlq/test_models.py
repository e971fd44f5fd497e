"""What the columns of a message take and give back."""

from datetime import datetime, timezone

import pytest
from django.db import connection
from django.utils import timezone as django_timezone

from django_taskkit.dlq.models import decode_mapping, encode_mapping
from django_taskkit.models import DeadLetter

ODD = [
    {"__type__": "nonsense", "__value__": 1},
    {"__type__": "datetime", "__value__": "yesterday"},
    {"__type__": ["a list"], "__value__": 1},
    {"__type__": "uuid", "__value__": {}},
    {"__type__": "nonsense"},
]


@pytest.mark.parametrize("odd", ODD)
def test_what_only_looks_like_a_mark_of_kombus_is_kept_and_what_is_one_is_read(odd):
    at = datetime(2026, 1, 1, tzinfo=timezone.utc)
    text = encode_mapping({"odd": odd, "deep": [{"odd": odd}], "at": at})

    assert decode_mapping(text) == {"odd": odd, "deep": [{"odd": odd}], "at": at}
    assert encode_mapping(decode_mapping(text)) == text


@pytest.mark.parametrize("text", ["", "no json", "[1, 2]", "42", '{"cut": "of', "[" * 100_000])
def test_what_is_no_mapping_is_shown_as_it_is(text):
    assert decode_mapping(text) == {"unreadable": text}


@pytest.mark.django_db
@pytest.mark.parametrize("column", ["headers", "properties"])
def test_a_row_can_be_read_whatever_is_in_its_columns(column):
    letter = DeadLetter.objects.create(
        task_id="x", task_name="t", reason="exception", died_at=django_timezone.now(), body=b""
    )
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {DeadLetter._meta.db_table} SET {column} = %s", ["no json"])  # noqa: S608

    assert getattr(DeadLetter.objects.get(pk=letter.pk), column) == {"unreadable": "no json"}
