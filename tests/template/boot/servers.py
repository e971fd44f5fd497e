"""Databases and brokers for one project: each its own, made before and taken away after."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from urllib.request import ProxyHandler, build_opener

from tests.live.waiting import free_port, unavailable, wait_until

LOOPBACK = "127.0.0.1"


def _name() -> str:
    return f"taskkit_boot_{os.getpid()}_{uuid.uuid4().hex[:6]}"


@contextlib.contextmanager
def postgresql() -> Iterator[dict[str, str]]:
    import psycopg

    address = os.environ.get("TASKKIT_TEST_POSTGRESQL_URL", f"postgresql://postgres@{LOOPBACK}:5432")
    name = _name()
    try:
        connection = psycopg.connect(f"{address}/postgres", autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as error:
        unavailable(f"no PostgreSQL: {error}")
    with connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield {"DATABASE_URL": f"{address}/{name}"}
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextlib.contextmanager
def mariadb() -> Iterator[dict[str, str]]:
    import pymysql

    name = _name()

    def execute(statement: str) -> None:
        # Each time anew: the server hangs up on whoever says nothing for long.
        with pymysql.connect(host=LOOPBACK, user="root", connect_timeout=5) as connection:
            connection.cursor().execute(statement)

    try:
        execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
    except pymysql.OperationalError as error:
        unavailable(f"no MariaDB: {error}")
    try:
        yield {"DATABASE_URL": f"mysql://root@{LOOPBACK}:3306/{name}"}
    finally:
        execute(f"DROP DATABASE `{name}`")


@contextlib.contextmanager
def _running(command: list[object], answers: Callable[[], bool]) -> Iterator[None]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until(lambda: process.poll() is not None or answers(), 60, f"{command[0]} answers")
            assert process.poll() is None, f"{command[0]} ended"
            yield
        finally:
            process.kill()
            process.wait(30)


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """A private Redis that keeps on disk what it has; gives its address without a database."""
    import redis as client

    binary = shutil.which("redis-server") or unavailable("there is no redis-server")
    port, folder = free_port(), tempfile.mkdtemp(prefix="taskkit-boot-redis-")

    def answers() -> bool:
        with client.Redis(port=port, socket_timeout=2) as connection, contextlib.suppress(client.ConnectionError):
            return bool(connection.ping())
        return False

    options = ["--port", port, "--bind", LOOPBACK, "--dir", folder, "--save", "", "--appendonly", "yes"]
    with _running([binary, *options], answers):
        yield f"redis://{LOOPBACK}:{port}"
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def rabbitmq() -> Iterator[dict[str, str]]:
    """A virtual host of its own."""
    if os.environ.get("TASKKIT_TEST_RABBITMQ_URL"):
        yield {"BROKER_URL": os.environ["TASKKIT_TEST_RABBITMQ_URL"]}
        return
    name = _name()

    def control(*arguments: str) -> bool:
        done = subprocess.run(["rabbitmqctl", "-q", *arguments], capture_output=True, timeout=90, check=False)
        return done.returncode == 0

    if not (shutil.which("rabbitmqctl") and control("add_vhost", name)):
        unavailable("no RabbitMQ that rabbitmqctl may give a virtual host")
    try:
        control("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        yield {"BROKER_URL": f"amqp://guest:guest@{LOOPBACK}:5672/{name}"}
    finally:
        control("delete_vhost", name)


@contextlib.contextmanager
def sqs() -> Iterator[dict[str, str]]:
    """Moto's server, which speaks as Amazon's SQS does, on loopback."""
    for module in ("moto", "boto3", "pycurl"):
        try:
            __import__(module)
        except ImportError:
            unavailable(f"needs {module} (pip install 'moto[server]' 'celery[sqs]')")
    port = free_port()
    opener = build_opener(ProxyHandler({}))

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return opener.open(f"http://{LOOPBACK}:{port}/moto-api/", timeout=2).status == 200
        return False

    with _running([sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", port], answers):
        yield {
            "BROKER_URL": f"sqs://key:secret@{LOOPBACK}:{port}",
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            # What the project would be given in a cloud that is not Amazon's.
            "AWS_ENDPOINT_URL": f"http://{LOOPBACK}:{port}",
        }


@contextlib.contextmanager
def servers_for(variant) -> Iterator[dict[str, str]]:
    """Start what the answers need; give the variables that the project is told."""
    with contextlib.ExitStack() as stack:
        environment: dict[str, str] = {}
        if variant.database != "sqlite":
            environment |= stack.enter_context({"postgresql": postgresql, "mariadb": mariadb}[variant.database]())
        if variant.broker == "rabbitmq":
            environment |= stack.enter_context(rabbitmq())
        if variant.broker == "sqs":
            environment |= stack.enter_context(sqs())
        if "redis" in (variant.broker, variant.results):
            address = stack.enter_context(redis())
            environment["CACHE_URL"] = f"{address}/1"
            if variant.broker == "redis":
                environment["BROKER_URL"] = f"{address}/0"
            if variant.results == "redis":
                environment["RESULT_URL"] = f"{address}/2"
        yield environment
