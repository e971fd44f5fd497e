"""Every connection by TLS: a certificate of one's own authority is taken, any other and any other name is refused."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.template.conftest import unavailable

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "live"))
from servers import PostgreSQLServer, RabbitMQServer
from services import RedisServer, Server

pytestmark = [pytest.mark.template, pytest.mark.boot]

#: For whom the certificates are; the same servers under another name are the wrong host.
RIGHT, WRONG = "localhost", "127.0.0.1"
#: RabbitMQ's, as kombu makes 127.0.0.1 of localhost, and verifies that.
RIGHT_IP, WRONG_IP = "127.0.0.1", "127.0.0.2"

SENDS_AND_RECEIVES = """
from config.celery import app

with app.connection_for_write() as connection:
    connection.ensure_connection(max_retries=1, interval_start=0)
    with connection.SimpleQueue("taskkit-tls") as queue:
        queue.put({"asked": True})
        message = queue.get(timeout=10)
        message.ack()
    print(message.payload)
"""

KEEPS_A_RESULT = """
from config.celery import app

# Below Celery's own retries, which take twenty seconds to say what is wrong.
app.backend.client.set("taskkit-tls", "kept")
print(app.backend.client.get("taskkit-tls"))
"""

CACHES = """
import config  # which chooses the settings
import django

django.setup()
from django.core.cache import cache

cache.set("taskkit-tls", "cached")
print(cache.get("taskkit-tls"))
"""

ASKS_POSTGRESQL = """
import config  # which chooses the settings
import django

django.setup()
from django.db import connection

with connection.cursor() as cursor:
    cursor.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    print("by TLS:", cursor.fetchone()[0])
"""

ASKS_MARIADB = """
import config  # which chooses the settings
import django

django.setup()
from django.db import connection

with connection.cursor() as cursor:
    cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
    print("by TLS:", bool(cursor.fetchone()[1]))
"""


class Authority:
    """Signs certificates; known by the file ``ca``."""

    def __init__(self, folder):
        self.folder = folder
        self.ca, self.key = folder / "ca.pem", folder / "ca.key"
        self._openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={folder.name}"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", self.key, "-out", self.ca),
        )

    def sign(self, folder, user=None, name=f"DNS:{RIGHT}"):
        """A key and a certificate for the right host, in a folder of the server that runs as `user`."""
        key, request, certificate = folder / "tls.key", folder / "tls.csr", folder / "tls.pem"
        names = folder / "tls.names"
        names.write_text(f"subjectAltName={name}\n")
        self._openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={RIGHT}", "-keyout", key, "-out", request)
        )
        self._openssl(
            *("x509", "-req", "-in", request, "-days", "2", "-extfile", names, "-out", certificate),
            *("-CA", self.ca, "-CAkey", self.key, "-CAcreateserial"),
        )
        key.chmod(0o600)
        if user:
            shutil.chown(key, user)
            shutil.chown(certificate, user)
        return certificate, key

    def _openssl(self, *arguments):
        if shutil.which("openssl") is None:
            unavailable("openssl is not installed")
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


class TLSRedis(RedisServer):
    def __init__(self, authority):
        super().__init__()
        self.certificate, self.key = authority.sign(self.folder)

    def options(self):
        tls = {
            "port": 0,
            "tls-port": self.port,
            "tls-cert-file": self.certificate,
            "tls-key-file": self.key,
            "tls-ca-cert-file": self.certificate,
            "tls-auth-clients": "no",
        }
        return [*super().options(), *(word for name, value in tls.items() for word in (f"--{name}", str(value)))]

    def answers(self):
        return accepts(self.port)


class TLSRabbitMQ(RabbitMQServer):
    def __init__(self, authority):
        super().__init__()
        certificate, key = authority.sign(self.folder, name=f"IP:{RIGHT_IP}")
        self.tls_port = free_port()
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.ssl.1 = {RIGHT_IP}:{self.tls_port}\n"
            f"listeners.ssl.2 = {WRONG_IP}:{self.tls_port}\n"
            f"ssl_options.certfile = {certificate}\n"
            f"ssl_options.keyfile = {key}\n"
            f"ssl_options.cacertfile = {authority.ca}\n"
            "ssl_options.verify = verify_none\n"
        )


class TLSPostgreSQL(PostgreSQLServer):
    def __init__(self, authority):
        super().__init__()
        self.files = authority.sign(self.folder, self.user)

    def start(self):
        super().start()
        certificate, key = self.files
        self._run("psql", *self._address, "-c", f"ALTER SYSTEM SET ssl_cert_file = '{certificate}'")
        self._run("psql", *self._address, "-c", f"ALTER SYSTEM SET ssl_key_file = '{key}'")
        self._run("psql", *self._address, "-c", "ALTER SYSTEM SET ssl = on")
        self._run("pg_ctl", "-D", str(self.data), "reload")
        return self

    @property
    def _address(self):
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", "postgres"]


class TLSMariaDB(Server):
    program = "mariadbd"

    def __init__(self, authority):
        super().__init__()
        self.binary = self.binary or shutil.which("mariadbd", path="/usr/sbin:/usr/local/sbin")
        self.user = "mysql" if os.geteuid() == 0 else None
        self.certificate, self.key = authority.sign(self.folder, self.user)
        if self.user:
            shutil.chown(self.folder, self.user)

    def start(self):
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", *self._place, "--auth-root-authentication-method=normal"],
            check=True,
            capture_output=True,
            timeout=120,
        )
        return super().start()

    @property
    def _place(self):
        return [f"--datadir={self.folder / 'data'}", *([f"--user={self.user}"] if self.user else [])]

    def options(self):
        return [
            *("--no-defaults", *self._place, f"--port={self.port}", "--bind-address=127.0.0.1"),
            *(f"--socket={self.folder / 'socket'}", f"--pid-file={self.folder / 'pid'}"),
            *(f"--ssl-cert={self.certificate}", f"--ssl-key={self.key}"),
        ]

    def answers(self):
        return accepts(self.port)


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except OSError:
        return False
    return True


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("strangers"))


def started(kind, authority):
    server = kind(authority)
    if not server.installed:
        unavailable(f"{kind.__name__[3:]} is not installed")
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(scope="module")
def redis(ours):
    yield from started(TLSRedis, ours)


@pytest.fixture(scope="module")
def rabbitmq(ours):
    yield from started(TLSRabbitMQ, ours)


@pytest.fixture(scope="module")
def postgresql(ours):
    yield from started(TLSPostgreSQL, ours)


@pytest.fixture(scope="module")
def mariadb(ours):
    yield from started(TLSMariaDB, ours)


@pytest.fixture(scope="module")
def on_redis(bake):
    return bake(broker="redis", results="redis", database="postgresql")


@pytest.fixture(scope="module")
def on_rabbitmq(bake):
    return bake(broker="rabbitmq", database="mariadb")


def agrees(baked, question, **environment):
    return baked.run("-c", question, **environment)


def refuses(baked, question, **environment):
    """Whether the project says no, and because of the certificate."""
    with pytest.raises(AssertionError, match="(?i)certificate.?verify.?failed|server certificate for"):
        baked.run("-c", question, **environment)
    return True


class TestRedis:
    @pytest.fixture(params=["the broker", "results", "the cache"])
    def question(self, request, redis, postgresql):
        """What is asked, and of whom, for a host."""
        variable, question = {
            "the broker": ("BROKER_URL", SENDS_AND_RECEIVES),
            "results": ("RESULT_URL", KEEPS_A_RESULT),
            "the cache": ("CACHE_URL", CACHES),
        }[request.param]
        plain = {"BROKER_URL": "redis://127.0.0.1:1/0", "RESULT_URL": "redis://127.0.0.1:1/0", "CACHE_URL": "db://"}

        def at(host, authority):
            return question, {**plain, variable: f"rediss://{host}:{redis.port}/0", "BROKER_CA": str(authority.ca)}

        return at

    def test_our_authority_is_taken(self, on_redis, question, ours):
        code, environment = question(RIGHT, ours)

        assert agrees(on_redis, code, **environment).strip() in ("{'asked': True}", "b'kept'", "cached")

    def test_an_unknown_authority_is_refused(self, on_redis, question, strangers):
        code, environment = question(RIGHT, strangers)

        assert refuses(on_redis, code, **environment)

    def test_a_certificate_for_another_host_is_refused(self, on_redis, question, ours):
        code, environment = question(WRONG, ours)

        assert refuses(on_redis, code, **environment)

    def test_without_an_authority_those_of_the_system_count(self, on_redis, question, ours):
        code, environment = question(RIGHT, ours)

        assert refuses(on_redis, code, **{**environment, "BROKER_CA": ""})


class TestRabbitMQ:
    def at(self, rabbitmq, host):
        return f"amqps://guest:guest@{host}:{rabbitmq.tls_port}//"

    def test_our_authority_is_taken(self, on_rabbitmq, rabbitmq, ours):
        said = agrees(on_rabbitmq, SENDS_AND_RECEIVES, BROKER_URL=self.at(rabbitmq, RIGHT_IP), BROKER_CA=str(ours.ca))

        assert said.strip() == "{'asked': True}"

    def test_an_unknown_authority_is_refused(self, on_rabbitmq, rabbitmq, strangers):
        address = self.at(rabbitmq, RIGHT_IP)

        assert refuses(on_rabbitmq, SENDS_AND_RECEIVES, BROKER_URL=address, BROKER_CA=str(strangers.ca))

    def test_a_certificate_for_another_host_is_refused(self, on_rabbitmq, rabbitmq, ours):
        address = self.at(rabbitmq, WRONG_IP)

        assert refuses(on_rabbitmq, SENDS_AND_RECEIVES, BROKER_URL=address, BROKER_CA=str(ours.ca))

    def test_without_an_authority_those_of_the_system_count(self, on_rabbitmq, rabbitmq):
        assert refuses(on_rabbitmq, SENDS_AND_RECEIVES, BROKER_URL=self.at(rabbitmq, RIGHT_IP), BROKER_CA="")


class TestPostgreSQL:
    def at(self, postgresql, host, authority):
        return f"postgresql://postgres@{host}:{postgresql.port}/postgres?sslmode=verify-full&sslrootcert={authority.ca}"

    def test_our_authority_is_taken(self, on_redis, postgresql, ours):
        said = agrees(on_redis, ASKS_POSTGRESQL, DATABASE_URL=self.at(postgresql, RIGHT, ours))

        assert said.strip() == "by TLS: True"

    def test_an_unknown_authority_is_refused(self, on_redis, postgresql, strangers):
        assert refuses(on_redis, ASKS_POSTGRESQL, DATABASE_URL=self.at(postgresql, RIGHT, strangers))

    def test_a_certificate_for_another_host_is_refused(self, on_redis, postgresql, ours):
        assert refuses(on_redis, ASKS_POSTGRESQL, DATABASE_URL=self.at(postgresql, WRONG, ours))


class TestMariaDB:
    def at(self, mariadb, host, authority):
        return f"mysql://root@{host}:{mariadb.port}/mysql?ssl-ca={authority.ca}"

    def test_our_authority_is_taken(self, on_rabbitmq, mariadb, ours):
        said = agrees(on_rabbitmq, ASKS_MARIADB, DATABASE_URL=self.at(mariadb, RIGHT, ours))

        assert said.strip() == "by TLS: True"

    def test_an_unknown_authority_is_refused(self, on_rabbitmq, mariadb, strangers):
        assert refuses(on_rabbitmq, ASKS_MARIADB, DATABASE_URL=self.at(mariadb, RIGHT, strangers))

    def test_a_certificate_for_another_host_is_refused(self, on_rabbitmq, mariadb, ours):
        assert refuses(on_rabbitmq, ASKS_MARIADB, DATABASE_URL=self.at(mariadb, WRONG, ours))
