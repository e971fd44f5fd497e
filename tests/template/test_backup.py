"""ops/backup.sh and ops/restore.sh on each database: what was saved comes back, and works."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.template.pairs import partly

pytestmark = pytest.mark.template

DATABASES = ("sqlite", "postgresql", "mariadb")

#: In VAR_DIR: what a task has made, what somebody has sent, and a dead letter that the database did not take.
FILES = {"exports/orders.csv": "a teapot", "media/photo": "a photo", "spool/letter": "a letter"}

#: Six orders.
FILL = """
import django
django.setup()
from django.core.management import call_command
call_command("place_demo_orders")
"""

#: A receipt that dies, as its customer has no address: the task runs here, in place of a worker.
LETTER = """
import django
django.setup()
from celery.contrib.testing.worker import start_worker
from django_taskkit.models import DeadLetter
from config.celery import app
from orders.models import Order
from orders.tasks import send_receipt
import time
order = Order.objects.filter(customer__email="").first()
with start_worker(app, pool="solo", perform_ping_check=False):
    send_receipt.delay(order.pk)
    deadline = time.monotonic() + 60
    while not DeadLetter.objects.filter(task_name="orders.tasks.send_receipt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
"""

COUNT = """
import django, json
django.setup()
from django.apps import apps
models = [model for model in apps.get_models() if model._meta.managed]
print(json.dumps({model._meta.label: sorted(map(repr, model.objects.values_list())) for model in models}))
"""

EMPTY = """
import django
django.setup()
from django.db import connection
with connection.schema_editor() as editor, connection.constraint_checks_disabled():
    for table in connection.introspection.table_names():
        how = " CASCADE" if connection.vendor == "postgresql" else ""
        editor.execute(f"DROP TABLE {editor.quote_name(table)}{how}")
"""


class Shop:
    """A project with a database of its own, and backups of it."""

    def __init__(self, project, servers, folder):
        self.project, self.folder = project, folder / "backups"
        self.environment = {**servers.environment(project), "DJANGO_SETTINGS_MODULE": "config.settings.development"}
        self.var = Path(self.environment["VAR_DIR"])

    def run(self, *arguments):
        return self.project.run(*arguments, **self.environment)

    def script(self, name, *arguments, **more):
        return subprocess.run(
            [self.project.path / "ops" / name, *map(str, arguments)],
            env=self.project.environment(**{"PYTHON": sys.executable, **self.environment, **more}),
            capture_output=True,
            text=True,
            timeout=300,
        )

    def backup(self, **more):
        done = self.script("backup.sh", self.folder, **more)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.strip())

    def rows(self):
        return json.loads(self.run("-c", COUNT).splitlines()[-1])


@pytest.fixture(scope="module", params=partly(DATABASES, 1, str))
def used(request, bake, servers, tmp_path_factory):
    shop = Shop(bake(database=request.param), servers, tmp_path_factory.mktemp("backups"))
    shop.run("manage.py", "migrate", "--verbosity", "0")
    shop.run("manage.py", "createcachetable")
    shop.run("-c", FILL)
    shop.run("-c", LETTER)
    for name, text in FILES.items():
        file = shop.var / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return shop


@pytest.fixture
def filled(used):
    yield used
    shutil.rmtree(used.folder, ignore_errors=True)


def test_what_was_saved_comes_back_and_the_dead_letter_can_be_sent_again(filled):
    before = filled.rows()
    assert len(before["orders.Order"]) == 6
    assert before["django_taskkit.DeadLetter"]
    backup = filled.backup()

    filled.run("-c", EMPTY)
    for name in FILES:
        (filled.var / name).unlink()
    restored = filled.script("restore.sh", backup)

    assert restored.returncode == 0, restored.stderr
    assert filled.rows() == before
    assert {name: (filled.var / name).read_text() for name in FILES} == FILES
    filled.run("manage.py", "migrate", "--check")
    sent = filled.run("manage.py", "taskkit", "requeue", "--task", "orders.tasks.send_receipt", "--yes", "--json")
    assert json.loads(sent.splitlines()[-1])["requeued"] == 1, sent


def test_a_database_with_tables_is_replaced_only_by_force(filled):
    before, backup = filled.rows(), filled.backup()
    filled.run(
        "-c", "import django; django.setup(); from orders.models import Order; Order.objects.all().update(item='x')"
    )
    changed = filled.rows()

    refused = filled.script("restore.sh", backup)
    assert refused.returncode == 1
    assert "--force deletes them" in refused.stderr
    assert filled.rows() == changed

    forced = filled.script("restore.sh", backup, "--force")
    assert forced.returncode == 0, forced.stderr
    assert filled.rows() == before


def test_a_damaged_backup_is_noticed_before_anything_is_changed(filled):
    backup = filled.backup()
    database = next(backup.glob("database*"))
    content = bytearray(database.read_bytes())
    content[len(content) // 2] ^= 0xFF
    database.write_bytes(content)

    refused = filled.script("restore.sh", backup, "--force")

    assert refused.returncode == 1
    assert "This backup is damaged; nothing was changed." in refused.stderr


def test_a_backup_is_private_whole_and_leaves_nothing_else(filled):
    backup = filled.backup()

    assert [path.name for path in filled.folder.iterdir()] == [backup.name]
    for path in (backup, *backup.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert not [path for path in backup.iterdir() if path.name == "login"]


def test_old_backups_go_when_a_new_one_is_made_and_not_before(filled):
    old = filled.folder / "shop-20200101T000000Z"
    foreign = filled.folder / "notes"
    for folder in (old, foreign):
        folder.mkdir(parents=True)
        os.utime(folder, (1, 1))

    failed = filled.script("backup.sh", filled.folder, PYTHON="/bin/false")
    assert failed.returncode != 0
    assert old.exists()
    assert sorted(path.name for path in filled.folder.iterdir()) == ["notes", old.name]

    new = filled.backup(KEEP="7")
    assert sorted(path.name for path in filled.folder.iterdir()) == ["notes", new.name]


def test_clients_that_are_older_than_the_server_are_named(bake, servers, tmp_path):
    shop = Shop(bake(database="postgresql"), servers, tmp_path)
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n")
    old.chmod(0o755)

    failed = shop.script("backup.sh", shop.folder, PATH=f"{tmp_path}:{os.environ['PATH']}")

    assert failed.returncode == 1
    assert "pg_dump is of 9: no backup. Install the clients of" in failed.stderr
    assert list(shop.folder.iterdir()) == []


@pytest.mark.parametrize("database", ["postgresql", "mariadb"])
def test_a_password_is_on_no_command_line_and_in_no_output(bake, servers, tmp_path, database):
    shop = Shop(bake(database=database), servers, tmp_path)
    seen = tmp_path / "seen"
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, answer in {"pg_dump": "pg_dump (PostgreSQL) 17.1", "psql": "170001", "mariadb-dump": ""}.items():
        program = tools / name
        program.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" >> {seen}\nenv >> {seen}\n'
            f'case $* in *--version* | *SHOW*) echo "{answer}" ;; *) exit 1 ;; esac\n'
        )
        program.chmod(0o755)
    scheme, rest = shop.environment["DATABASE_URL"].split("://")
    shop.environment["DATABASE_URL"] = ""
    (shop.project.path / "secret").unlink(missing_ok=True)
    project = shop.project.copy(tmp_path / "shop")
    lines = project.text(".env").splitlines()
    address = f"{scheme}://someone:very%20secret@{rest.split('@')[-1]}"
    lines = [f"DATABASE_URL={address}" if line.startswith("DATABASE_URL=") else line for line in lines]
    (project.path / ".env").write_text("\n".join(lines) + "\n")
    shop.project = project

    failed = shop.script("backup.sh", shop.folder, PATH=f"{tools}:{os.environ['PATH']}")

    assert failed.returncode != 0
    assert "very secret" not in seen.read_text() + failed.stdout + failed.stderr
    assert list(shop.folder.iterdir()) == []
