"""`services.py` of a generated project: servers that are there, or what to do."""

import os
import shutil
import socket
import subprocess
import sys
import uuid

import pytest
import yaml

from tests.template.conftest import unavailable
from tests.template.servers import _server, _services

pytestmark = pytest.mark.template

PASSWORD = 'It\'s "a" se\\cret: %s'
IN_A_URL = "It%27s%20%22a%22%20se%5Ccret%3A%20%25s"

#: Programs that services.py may find: all but Docker, unless a test brings its own.
PROGRAMS = ("psql", "mariadb", "mysql", "runuser")

DOCKER = """#!/bin/sh
echo "$@" >> "{folder}/docker"
printf "%s" "${{POSTGRES_PASSWORD:-}}" > "{folder}/password"
"""


@pytest.fixture
def path(tmp_path):
    """A folder for PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in PROGRAMS:
        if found := shutil.which(program):
            (folder / program).symlink_to(found)
    return folder


@pytest.fixture
def look(path):
    """Let services.py look at servers; return its exit code and all that it said."""

    def look(project, *variables, **environment):
        done = subprocess.run(
            [sys.executable, "services.py", *variables],
            cwd=project.path,
            env={**project.environment(**environment), "PATH": str(path)},
            capture_output=True,
            text=True,
        )
        said = done.stdout + done.stderr
        assert not any(word in said for word in ("Traceback", PASSWORD, IN_A_URL)), said
        return done.returncode, said

    return look


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def name():
    return f"services_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def postgresql(name):
    """Run SQL as the administrator; what `name` became is taken away at the end."""
    psycopg = pytest.importorskip("psycopg")
    server = _server("POSTGRESQL", "5432")
    address = {"host": server["HOST"], "port": server["PORT"], "user": server["USER"]}

    def say(sentence, *values):
        with psycopg.connect(dbname="postgres", autocommit=True, **address) as connection:
            cursor = connection.execute(sentence, values or None)
            return cursor.fetchall() if cursor.description else None

    try:
        say("SELECT 1")
    except psycopg.OperationalError as exc:
        unavailable(f"PostgreSQL: {exc}")
    yield say
    say(f"DROP DATABASE IF EXISTS {name}")
    say(f"DROP ROLE IF EXISTS {name}")


@pytest.fixture
def mariadb(name):
    """Run SQL as root; what `name` became is taken away at the end."""
    pymysql = pytest.importorskip("pymysql")
    server = _server("MARIADB", "3306")
    address = {"host": server["HOST"], "port": int(server["PORT"]), "user": server["USER"]}

    def say(sentence):
        with pymysql.connect(password=server["PASSWORD"], **address) as connection, connection.cursor() as cursor:
            cursor.execute(sentence)
            return cursor.fetchall()

    try:
        say("SELECT 1")
    except pymysql.MySQLError as exc:
        unavailable(f"MariaDB: {exc}")
    yield say
    say(f"DROP DATABASE IF EXISTS {name}")
    for host in ("localhost", "127.0.0.1"):
        say(f"DROP USER IF EXISTS {name}@'{host}'")


def test_a_user_and_a_database_that_postgresql_lacks_are_made(bake, look, postgresql, name):
    project = bake(database="postgresql")
    url = f"postgresql://{name}:{IN_A_URL}@127.0.0.1:5432/{name}"

    assert look(project, DATABASE_URL=url) == (
        0,
        "PostgreSQL at 127.0.0.1:5432 (DATABASE_URL in .env): user and database are made.\n",
    )

    assert postgresql("SELECT rolcreatedb, rolsuper FROM pg_roles WHERE rolname = %s", name) == [(True, False)]
    assert look(project, DATABASE_URL=url) == (0, "")


def test_a_database_alone_is_made_for_a_user_who_is_there(bake, look, postgresql, name):
    postgresql(f"CREATE ROLE {name} LOGIN")

    code, said = look(bake(database="postgresql"), DATABASE_URL=f"postgresql://{name}@127.0.0.1:5432/{name}")

    assert (code, "are made" in said) == (0, True)


def test_a_user_and_a_database_that_mariadb_lacks_are_made_for_the_tests_too(bake, look, mariadb, name):
    pymysql = pytest.importorskip("pymysql")
    project = bake(database="mariadb")
    url = f"mysql://{name}:{IN_A_URL}@127.0.0.1:3306/{name}"

    assert look(project, "DATABASE_URL", DATABASE_URL=url)[0] == 0

    with pymysql.connect(host="127.0.0.1", user=name, password=PASSWORD) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE test_{name}")
        cursor.execute(f"DROP DATABASE test_{name}")
        with pytest.raises(pymysql.OperationalError):
            cursor.execute(f"CREATE DATABASE more_{name}")


def test_who_has_another_password_keeps_it_and_is_told_what_to_run(bake, look, mariadb, name):
    mariadb(f"CREATE USER {name}@'localhost' IDENTIFIED BY 'another', {name}@'127.0.0.1' IDENTIFIED BY 'another'")

    code, said = look(
        bake(database="mariadb"), "DATABASE_URL", DATABASE_URL=f"mysql://{name}:{IN_A_URL}@127.0.0.1:3306/{name}"
    )

    assert code == 1
    assert "MariaDB at 127.0.0.1:3306 (DATABASE_URL in .env) answers, and does not let this project in" in said
    assert f"CREATE USER IF NOT EXISTS '{name}'@'localhost' IDENTIFIED BY '(that of DATABASE_URL)'" in said


@pytest.mark.parametrize(
    ("answers", "variable", "scheme", "server"),
    [
        ({"database": "postgresql"}, "DATABASE_URL", "postgresql", "PostgreSQL"),
        ({"database": "mariadb"}, "DATABASE_URL", "mysql", "MariaDB"),
        ({"broker": "redis"}, "BROKER_URL", "redis", "Redis"),
        ({"broker": "rabbitmq"}, "BROKER_URL", "amqp", "RabbitMQ"),
    ],
)
def test_a_server_that_does_not_answer_is_said_in_one_sentence(
    bake, look, free_port, answers, variable, scheme, server
):
    url = f"{scheme}://shop:{IN_A_URL}@127.0.0.1:{free_port}/1"

    code, said = look(bake(**answers), variable, **{variable: url})

    assert code == 1
    assert said == (
        f"{server} at 127.0.0.1:{free_port} ({variable} in .env) does not answer: "
        "start it, or install Docker with Compose, which then starts one.\n"
    )


def test_one_on_another_machine_is_left_to_that_machine(bake, look, path):
    (path / "docker").write_text("#!/bin/sh\nexit 1\n")

    code, said = look(bake(broker="redis"), "BROKER_URL", BROKER_URL="redis://redis.invalid:6379/0")

    assert code == 1
    assert "Redis at redis.invalid:6379 (BROKER_URL in .env) does not answer: start it there, or correct" in said


@pytest.mark.parametrize(("broker", "kind"), [("redis", "Redis"), ("rabbitmq", "RabbitMQ")])
def test_a_broker_that_lets_the_project_in_needs_no_word(bake, look, broker, kind):
    services = _services()
    server = services.service(getattr(services, kind))
    url = server.claim() if broker == "redis" else server.url

    assert look(bake(broker=broker), "BROKER_URL", BROKER_URL=url) == (0, "")


def test_a_broker_that_does_not_let_the_project_in_is_said(bake, look):
    services = _services()
    url = services.service(services.RabbitMQ).url
    wrong = f"amqp://nobody:{IN_A_URL}@{url.partition('@')[2]}"

    code, said = look(bake(broker="rabbitmq"), "BROKER_URL", BROKER_URL=wrong)

    assert code == 1
    assert "answers, and does not let this project in: correct user, password and name there.\n" in said


def test_docker_is_asked_for_those_that_do_not_answer_and_for_no_other(bake, look, path, free_port, postgresql, name):
    """Docker is a script here, as there is no engine; its arguments are those that Compose takes."""
    folder = path.parent
    docker = path / "docker"
    docker.write_text(DOCKER.format(folder=folder))
    docker.chmod(0o755)
    (path / "sh").symlink_to("/bin/sh")
    project = bake(database="postgresql", broker="redis")
    postgresql(f"CREATE ROLE {name} LOGIN CREATEDB")
    postgresql(f"CREATE DATABASE {name} OWNER {name}")

    code, said = look(
        project,
        "DATABASE_URL",
        "BROKER_URL",
        DATABASE_URL=f"postgresql://{name}:{IN_A_URL}@127.0.0.1:5432/{name}",
        BROKER_URL=f"redis://127.0.0.1:{free_port}/0",
    )

    assert code == 1
    assert (folder / "docker").read_text().splitlines() == [
        "compose version",
        f"compose --file {project.path}/compose.dev.yaml up --detach --wait redis",
    ]
    assert (folder / "password").read_text() == PASSWORD
    assert "Docker starts redis, from compose.dev.yaml." in said
    assert "does not answer, and Docker has not started it; it says above why not." in said


@pytest.mark.parametrize(
    "answers",
    [
        {"database": "postgresql", "broker": "redis"},
        {"database": "mariadb", "broker": "rabbitmq", "results": "redis"},
        {"broker": "redis"},
    ],
)
def test_what_docker_is_asked_for_is_in_the_compose_file(bake, answers):
    project = bake(**answers)

    known = yaml.safe_load(project.text("compose.dev.yaml"))["services"]
    named = project.run("-c", "import services; print(*{kind.service for kind in services.KINDS.values()})").split()

    assert set(named) == set(known)


def test_a_project_without_servers_looks_for_none(shop):
    assert not os.path.exists(shop.path / "services.py")
    assert "services" not in shop.text("Makefile")
