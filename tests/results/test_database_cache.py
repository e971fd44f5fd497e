"""What is particular to Django's database cache."""

from __future__ import annotations

import asyncio

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.core.management import call_command
from django.db import connection

from django_taskkit.results import ResultCache

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def table(settings):
    """The database cache ``db``."""
    backend = "django.core.cache.backends.db.DatabaseCache"
    settings.CACHES = {**settings.CACHES, "db": {"BACKEND": backend, "LOCATION": "taskkit_review"}}
    call_command("createcachetable", "taskkit_review", verbosity=0)
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE taskkit_review")


class TestInTheDatabase:
    def test_arguments_in_small_and_capital_letters_are_two_calls(self, station, table):
        """On MariaDB, whose tables take both for one: run with TASKKIT_TEST_DATABASE=mariadb."""

        @station.app.task(name="shop.named")
        def named(user):
            return f"for {user}"

        cache = ResultCache(named, cache="db")
        for user in ("Bob", "bob"):
            cache.get_or_dispatch(user)
            station.run_all()

        assert (cache.peek("Bob").value, cache.peek("bob").value) == ("for Bob", "for bob")

    def test_who_calls_it_from_async_code_is_told_so(self, station, report, table):
        async def view():
            return ResultCache(report, cache="db").get_or_dispatch(7)

        with pytest.raises(SynchronousOnlyOperation):
            asyncio.run(view())
