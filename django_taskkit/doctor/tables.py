"""Is the database there with this app's tables, and how much waits in them for someone?"""

from __future__ import annotations

from collections.abc import Iterator

from django.db import DatabaseError, connections, router
from django.db.migrations.executor import MigrationExecutor

from django_taskkit.dlq import retention
from django_taskkit.dlq.durable import NoConnectionError, durable
from django_taskkit.dlq.models import DeadLetter
from django_taskkit.doctor.finding import Finding, error, ok, warning
from django_taskkit.doctor.site import Site

DATABASE = "database"
MIGRATIONS = "migrations"
DEAD_LETTERS = "dead-letters"
APP = "django_taskkit"


def database(site: Site) -> Iterator[Finding]:
    """``database``: the one with the dead letters answers."""
    using = router.db_for_write(DeadLetter)
    try:
        with durable(using, site.timeout), connections[using].cursor() as cursor:
            cursor.execute("SELECT 1")
    except (NoConnectionError, DatabaseError) as exc:
        site.database_is_down = True
        said = " ".join(str(exc).split())
        yield error(
            DATABASE,
            f"The database {using!r} does not answer: {said}",
            "Start it, or correct DATABASES. Meanwhile dead letters go to the spool, and nothing is sent later.",
        )
    else:
        yield ok(DATABASE, f"The database {using!r} ({connections[using].vendor}) answers.")


def migrations(site: Site) -> Iterator[Finding]:
    """``migrations``: all of this app's are applied."""
    using = router.db_for_write(DeadLetter)
    executor = MigrationExecutor(connections[using])
    targets = [node for node in executor.loader.graph.leaf_nodes() if node[0] == APP]
    pending = [
        migration.name
        for migration, _backwards in executor.migration_plan(targets)
        if migration.app_label == APP and router.allow_migrate(using, APP)
    ]
    if pending:
        yield error(
            MIGRATIONS,
            f"{len(pending)} migrations of django_taskkit are not applied to {using!r}: {', '.join(pending)}.",
            f"Run `manage.py migrate django_taskkit --database {using}` before workers with this code start.",
        )
    else:
        yield ok(MIGRATIONS, f"All migrations of django_taskkit are applied to {using!r}.")


def dead_letters(site: Site) -> Iterator[Finding]:
    """``dead-letters``: no more wait, and no longer, than ``DEAD_WARN_COUNT`` and ``DEAD_WARN_AGE_DAYS`` allow."""
    found = retention.warnings()
    for warned in found:
        yield warning(DEAD_LETTERS, warned.text, warned.hint)
    if not found:
        yield ok(DEAD_LETTERS, "Dead letters are within their limits.")
