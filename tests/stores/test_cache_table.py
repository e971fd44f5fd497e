"""Facts in the table of the database cache: what expires there, and what the table is rid of."""

from datetime import datetime, timezone

import pytest
from django.core.cache import caches
from django.db import connection

from django_taskkit.exceptions import StoreError
from django_taskkit.stores import cache_table
from django_taskkit.stores.cache_table import CacheTableStore

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.parametrize("chosen", ["database"], indirect=True),
]
TABLE = "taskkit_test_cache"


@pytest.fixture
def table(chosen):
    return CacheTableStore("default")


def rows():
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM {TABLE}")  # noqa: S608
        return cursor.fetchone()[0]


def expire_all():
    with connection.cursor() as cursor:
        past = connection.ops.adapt_datetimefield_value(datetime(2020, 1, 1, tzinfo=timezone.utc))
        cursor.execute(f"UPDATE {TABLE} SET expires = %s", [past])  # noqa: S608


def test_a_value_whose_time_is_up_is_none_and_can_be_written_anew_by_one(table):
    assert table.swap("taskkit:a", None, b"1", ttl=60)
    expire_all()

    assert table.read("taskkit:a") is None
    assert not table.swap("taskkit:a", b"1", b"2", ttl=60)
    assert table.swap("taskkit:a", None, b"3", ttl=60)
    assert not table.swap("taskkit:a", None, b"4", ttl=60)
    assert (table.read("taskkit:a"), rows()) == (b"3", 1)


def test_a_new_row_takes_those_along_whose_time_is_up(table, monkeypatch):
    monkeypatch.setattr(cache_table, "TIDY", 0)
    for number in range(5):
        table.swap(f"taskkit:{number}", None, b"1", ttl=60)
    expire_all()
    monkeypatch.setattr(cache_table, "TIDY", 1)

    table.swap("taskkit:new", None, b"1", ttl=60)

    assert rows() == 1


def test_it_lives_beside_what_the_cache_itself_keeps(table):
    caches["default"].set("theirs", {"a": 1}, 60)

    assert table.swap("taskkit:ours", None, b"1", ttl=60)

    assert caches["default"].get("theirs") == {"a": 1}
    assert caches["default"].delete("theirs")
    assert table.read("taskkit:ours") == b"1"


def test_a_table_that_is_missing_is_a_store_error(table):
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {TABLE} RENAME TO {TABLE}_away")
    try:
        with pytest.raises(StoreError, match="out of reach"):
            table.read("taskkit:a")
        with pytest.raises(StoreError, match="out of reach"):
            table.swap("taskkit:a", None, b"1", ttl=60)
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {TABLE}_away RENAME TO {TABLE}")
