"""Databases and brokers for generated projects, on the servers of this machine."""

import itertools
import os
import sys
import tempfile
from pathlib import Path

_LIVE = str(Path(__file__).resolve().parents[1] / "live")


class Servers:
    """Hands out what a project needs, each time something new, and takes all of it away at the end."""

    def __init__(self):
        self._numbers = itertools.count()
        self._take_away = []

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        while self._take_away:
            self._take_away.pop()()

    def environment(self, baked):
        """The variables that lead a project to servers of its own, as its answers ask for."""
        folder = tempfile.TemporaryDirectory(prefix="taskkit-var-", ignore_cleanup_errors=True)
        self._take_away.append(folder.cleanup)
        answers, environment = baked.answers, {"VAR_DIR": folder.name}
        if answers["database"] != "sqlite":
            environment["DATABASE_URL"] = getattr(self, f"_{answers['database']}")()
        if answers["broker"] == "sqs":
            environment |= {
                "BROKER_URL": "sqs://",
                "AWS_REGION": "eu-central-1",
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
            }
        elif answers["broker"] != "embedded":
            environment["BROKER_URL"] = getattr(self, f"_{answers['broker']}")()
        if answers["results"] == "redis":
            environment["RESULT_URL"] = self._redis()
        return environment

    def _name(self):
        return f"taskkit_template_{os.getpid()}_{next(self._numbers)}"

    def _postgresql(self):
        import psycopg

        name, server = self._name(), _server("POSTGRESQL", "5432")
        address = {"host": server["HOST"], "port": server["PORT"], "user": server["USER"]}
        if server["PASSWORD"]:
            address["password"] = server["PASSWORD"]

        def say(sentence):
            with psycopg.connect(dbname="postgres", autocommit=True, **address) as connection:
                connection.execute(sentence)

        say(f"CREATE DATABASE {name}")
        self._take_away.append(lambda: say(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        return f"postgresql://{_who(server)}/{name}"

    def _mariadb(self):
        import pymysql

        name, server = self._name(), _server("MARIADB", "3306")

        def say(sentence):
            with (
                pymysql.connect(
                    host=server["HOST"], port=int(server["PORT"]), user=server["USER"], password=server["PASSWORD"]
                ) as connection,
                connection.cursor() as cursor,
            ):
                cursor.execute(sentence)

        say(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        self._take_away.append(lambda: say(f"DROP DATABASE IF EXISTS {name}"))
        return f"mysql://{_who(server)}/{name}"

    def _redis(self):
        services = _services()
        redis = services.service(services.Redis)
        url = redis.claim()
        self._take_away.append(lambda: redis.release(url))
        return url

    def _rabbitmq(self):
        services = _services()
        return services.service(services.RabbitMQ).url


def _server(kind, port):
    """Where a server is, and who asks: the variables of tests/settings.py."""
    known = {"HOST": "127.0.0.1", "PORT": port, "USER": "root", "PASSWORD": ""}
    return {key: os.environ.get(f"TASKKIT_TEST_{kind}_{key}", value) for key, value in known.items()}


def _who(server):
    password = f":{server['PASSWORD']}" if server["PASSWORD"] else ""
    return f"{server['USER']}{password}@{server['HOST']}:{server['PORT']}"


def _services():
    """tests/live/services.py, whose Redis and RabbitMQ end with this process."""
    if _LIVE not in sys.path:
        sys.path.insert(0, _LIVE)
    import services

    return services
