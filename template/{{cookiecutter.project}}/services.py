{%- set redis = cookiecutter.broker == "redis" or cookiecutter.results == "redis" -%}
{%- set database = {"postgresql": "PostgreSQL", "mariadb": "MariaDB"}.get(cookiecutter.database) -%}
"""See that the servers of .env are there, before `make run` and `make test`. What is missing is made, or said.

On this machine, a server that does not answer is started by Docker, if there is one, from compose.dev.yaml.
{%- if database %} A user
and a database that {{ database }} does not know are made, if you may make them without a password.
{%- endif %}
No password is shown.
"""

import argparse
{%- if database %}
import os
import shutil
{%- endif %}
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field{% if database %}, replace{% endif %}
from pathlib import Path
from urllib.parse import {% if database %}unquote, {% endif %}urlsplit

from config.environment import Environment

COMPOSE = Path(__file__).resolve().parent / "compose.dev.yaml"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
#: Seconds for a server to answer.
PATIENCE = 5
{%- if database %}
#: What is shown in the place of a password.
HIDDEN = "(that of DATABASE_URL)"
{%- endif %}
{%- if database %}


@dataclass(frozen=True)
class Account:
    """Who the project is in its database, by DATABASE_URL."""

    host: str
    port: int
    user: str
    password: str
    database: str


def account(url: str, port: int) -> Account:
    parts = urlsplit(url)
    user, password, name = (unquote(text or "") for text in (parts.username, parts.password, parts.path.lstrip("/")))
    return Account(parts.hostname or "127.0.0.1", parts.port or port, user, password, name)


def run_sql(programs: list[list[str]], statements: str) -> None:
    """Let the first program that is let in run the statements, which are kept out of the list of processes."""
{%- if cookiecutter.database == "postgresql" %}
    # PGHOST and its like may lead to another server.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment["PGCONNECT_TIMEOUT"] = str(PATIENCE)
{%- endif %}
    for program in programs:
        if shutil.which(program[0]):
            # In a folder that everybody may enter, as `sudo -u` changes who reads it.
            done = subprocess.run(program, input=statements, text=True, capture_output=True, cwd="/"{% if cookiecutter.database == "postgresql" %}, env=environment{% endif %})
            if done.returncode == 0:
                return
{%- endif %}
{%- if cookiecutter.database == "postgresql" %}


def postgresql_lets_in(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=PATIENCE).close()
    except psycopg.OperationalError:
        return False
    return True


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def sql_for(of: Account) -> list[str]:
    user, database = identifier(of.user), identifier(of.database)
    return [
        # The tests make a database of their own.
        f"CREATE ROLE {user} LOGIN CREATEDB PASSWORD {literal(of.password)}",
        f"CREATE DATABASE {database} OWNER {user}",
    ]


def make_account(of: Account) -> None:
    """Make user and database as you, or as postgres: by socket, TCP, sudo, and never asking for a password."""
    missing = [
        f"NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal(of.user)})",
        f"NOT EXISTS (SELECT FROM pg_database WHERE datname = {literal(of.database)})",
    ]
    statements = [
        f"SELECT {literal(statement)} WHERE {condition} \\gexec\n"
        for statement, condition in zip(sql_for(of), missing, strict=True)
    ]
    psql = ["psql", "--no-psqlrc", "--no-password", "--quiet", "--set=ON_ERROR_STOP=1", f"--port={of.port}"]
    psql.append("--dbname=postgres")
    programs = [
        psql,
        [*psql, "--username=postgres"],
        [*psql, "--username=postgres", f"--host={of.host}"],
        ["sudo", "-n", "-u", "postgres", *psql],
        ["runuser", "-u", "postgres", "--", *psql],
    ]
    run_sql(programs, "".join(statements))
{%- elif cookiecutter.database == "mariadb" %}


def mariadb_lets_in(url: str) -> bool:
    import pymysql

    of = account(url, 3306)
    try:
        pymysql.connect(
            host=of.host,
            port=of.port,
            user=of.user,
            password=of.password,
            database=of.database,
            connect_timeout=PATIENCE,
        ).close()
    except pymysql.MySQLError:
        return False
    return True


def identifier(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def sql_for(of: Account) -> list[str]:
    # By TCP it is one or the other, as the server looks up names or not.
    users = [f"{literal(of.user)}@'{host}'" for host in ("localhost", "127.0.0.1")]
    # The tests make a database of their own. An underscore stands for any character.
    tests = identifier("test_" + of.database + "%").replace("_", "\\_")
    return [
        f"CREATE DATABASE IF NOT EXISTS {identifier(of.database)} CHARACTER SET utf8mb4",
        f"CREATE USER IF NOT EXISTS {', '.join(f'{user} IDENTIFIED BY {literal(of.password)}' for user in users)}",
        f"GRANT ALL ON {identifier(of.database).replace('_', '\\_')}.* TO {', '.join(users)}",
        f"GRANT ALL ON {tests}.* TO {', '.join(users)}",
    ]


def make_account(of: Account) -> None:
    """Make user and database as you, or as root: by socket, TCP, sudo, and never asking for a password."""
    client = ["mariadb" if shutil.which("mariadb") else "mysql", f"--connect-timeout={PATIENCE}"]
    programs = [
        client,
        [*client, "--user=root"],
        [*client, "--user=root", f"--host={of.host}", f"--port={of.port}", "--protocol=TCP"],
        ["sudo", "-n", *client, "--user=root"],
    ]
    run_sql(programs, "".join(f"{statement};\n" for statement in sql_for(of)))
{%- endif %}
{%- if redis %}


def redis_lets_in(url: str) -> bool:
    import redis

    tls = {"ssl_ca_certs": Environment().text("BROKER_CA") or None} if url.startswith("rediss") else {}
    try:
        redis.Redis.from_url(url, socket_connect_timeout=PATIENCE, socket_timeout=PATIENCE, **tls).ping()
    except redis.RedisError:
        return False
    return True
{%- endif %}
{%- if cookiecutter.broker == "rabbitmq" %}


def rabbitmq_lets_in(url: str) -> bool:
    from kombu import Connection

    tls = {"ca_certs": Environment().text("BROKER_CA") or None} if url.startswith("amqps") else False
    connection = Connection(url, connect_timeout=PATIENCE, ssl=tls)
    try:
        connection.connect()
    except (*connection.connection_errors, *connection.channel_errors):
        return False
    finally:
        connection.release()
    return True
{%- endif %}


@dataclass(frozen=True)
class Kind:
    """A sort of server: its usual port, its name in compose.dev.yaml, and how to ask whether it lets us in."""

    name: str
    port: int
    service: str
    lets_in: Callable[[str], bool]


{% if cookiecutter.database == "postgresql" -%}
POSTGRESQL = Kind("PostgreSQL", 5432, "db", postgresql_lets_in)
{% elif cookiecutter.database == "mariadb" -%}
MARIADB = Kind("MariaDB", 3306, "db", mariadb_lets_in)
{% endif -%}
{% if redis -%}
REDIS = Kind("Redis", 6379, "redis", redis_lets_in)
{% endif -%}
{% if cookiecutter.broker == "rabbitmq" -%}
RABBITMQ = Kind("RabbitMQ", 5672, "rabbitmq", rabbitmq_lets_in)
RABBITMQ_TLS = Kind("RabbitMQ", 5671, "rabbitmq", rabbitmq_lets_in)
{% endif -%}
KINDS = {
{%- if cookiecutter.database == "postgresql" %}
    "postgresql": POSTGRESQL,
    "postgres": POSTGRESQL,
{%- elif cookiecutter.database == "mariadb" %}
    "mysql": MARIADB,
{%- endif %}
{%- if redis %}
    "redis": REDIS,
    "rediss": REDIS,
{%- endif %}
{%- if cookiecutter.broker == "rabbitmq" %}
    "amqp": RABBITMQ,
    "amqps": RABBITMQ_TLS,
{%- endif %}
}
VARIABLES = ("DATABASE_URL", "BROKER_URL", "RESULT_URL", "CACHE_URL")


@dataclass
class Server:
    kind: Kind
    host: str
    port: int
    urls: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind.name} at {self.host}:{self.port} ({', '.join(self.urls)} in .env)"

    @property
    def is_here(self) -> bool:
        return self.host in LOOPBACK

    def answers(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), timeout=PATIENCE).close()
        except OSError:
            return False
        return True

    def lets_in(self) -> bool:
        return all(self.kind.lets_in(url) for url in self.urls.values())


def servers(variables: list[str]) -> list[Server]:
    environment = Environment()
    found: dict[tuple[str, str, int], Server] = {}
    for variable in variables:
        parts = urlsplit(url := environment.text(variable))
        if (kind := KINDS.get(parts.scheme)) and parts.hostname:  # one without is a socket, or a file
            place = (kind.name, parts.hostname, parts.port or kind.port)
            found.setdefault(place, Server(kind, *place[1:])).urls[variable] = url
    return list(found.values())


def start(silent: list[Server]) -> bool:
    """Let Docker start those of this machine; return whether it was there to try."""
    docker = ["docker", "compose"]
    try:
        subprocess.run([*docker, "version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    names = [server.kind.service for server in silent]
    print(f"Docker starts {', '.join(names)}, from {COMPOSE.name}.", flush=True)
{%- if database %}
    password = account(Environment().text("DATABASE_URL"), 0).password
    environment = os.environ | {"{% if cookiecutter.database == "postgresql" %}POSTGRES{% else %}MARIADB{% endif %}_PASSWORD": password}
    subprocess.run([*docker, "--file", COMPOSE, "up", "--detach", "--wait", *names], env=environment, check=False)
{%- else %}
    subprocess.run([*docker, "--file", COMPOSE, "up", "--detach", "--wait", *names], check=False)
{%- endif %}
    return True


def no_answer(server: Server, *, docker: bool) -> str:
    if not server.is_here:
        return f"{server} does not answer: start it there, or correct its address."
    if docker:
        return f"{server} does not answer, and Docker has not started it; it says above why not."
    return f"{server} does not answer: start it, or install Docker with Compose, which then starts one."


def no_entry(server: Server) -> str:
{%- if database %}
    text = f"{server} answers, and does not let this project in: correct user, password and name there."
    if "DATABASE_URL" in server.urls:
        of = replace(account(server.urls["DATABASE_URL"], server.port), password=HIDDEN)
        text += " Or let its administrator run:\n" + "\n".join(f"    {statement};" for statement in sql_for(of))
    return text
{%- else %}
    return f"{server} answers, and does not let this project in: correct user, password and name there."
{%- endif %}


def complaints(variables: list[str]) -> list[str]:
    """Mend what can be mended; return a sentence for each server that is still not of use."""
    wanted = servers(variables)
    silent = [server for server in wanted if not server.answers()]
    here = [server for server in silent if server.is_here]
    docker = bool(here) and start(here)
    if docker:
        silent = [server for server in silent if not server.answers()]
    said = [no_answer(server, docker=docker) for server in silent]
    for server in wanted:
        if server in silent or server.lets_in():
            continue
{%- if database %}
        if server.is_here and "DATABASE_URL" in server.urls:
            make_account(account(server.urls["DATABASE_URL"], server.port))
            if server.lets_in():
                print(f"{server}: user and database are made.")
                continue
{%- endif %}
        said.append(no_entry(server))
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("variables", nargs="*", metavar="VARIABLE", help=f"of .env; default: {', '.join(VARIABLES)}")
    said = complaints(parser.parse_args().variables or list(VARIABLES))
    for sentence in said:
        print(sentence, file=sys.stderr)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
