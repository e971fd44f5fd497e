"""The commands of compose.yaml, really run, each watched by its own health check; and Caddy in front of them."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.template.composed import Composed, make_production_env
from tests.template.conftest import tool, unavailable

pytestmark = [pytest.mark.template, pytest.mark.boot]

#: Ports in containers, which the test gives other numbers.
PORTS = ("8000", "5555", "9100", "9101", "6379", "2019")
FROM_OUTSIDE = "id-from-outside"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


def until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)
    return value


class Machine:
    """Runs services of a compose file as Compose would, without containers."""

    def __init__(self, composed, folder, more):
        self.composed, self.folder, self.more = composed, folder, more
        self.ports = {port: free_port() for port in PORTS}
        self.running = {}

    def start(self, name):
        service = self.composed.services[name]
        with open(self.folder / f"{name}.log", "wb") as log:
            self.running[name] = subprocess.Popen(
                self._command(service["command"]),
                cwd=self.composed.baked.path,
                env=self._environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def check(self, name):
        """Run the health check of a service; return its exit code and what it said."""
        test = self.composed.services[name]["healthcheck"]["test"]
        done = subprocess.run(
            self._command(test[1:]),
            cwd=self.composed.baked.path,
            env=self._environment(name),
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr

    def healthy(self, name):
        def well():
            assert self.running[name].poll() is None, self.log(name)
            return self.check(name)[0] == 0

        until(well, 90, lambda: f"{name}: {self.check(name)}\n{self.log(name)}")

    def stop(self, name):
        """As Compose does: TERM to the one process, and KILL when the grace is over. Return the exit code."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(int(self.composed.services[name]["stop_grace_period"][:-1]))

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def close(self):
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def moved(self, text):
        """A text with the ports of this machine."""
        for port, here in self.ports.items():
            text = text.replace(f":{port}", f":{here}").replace(f"--port={port}", f"--port={here}")
        return text

    def _command(self, command):
        first, *words = [self.moved(self.composed.fill(word)) for word in command]
        beside = Path(sys.executable).with_name(first)
        program = sys.executable if first == "python" else str(beside) if beside.exists() else tool(first)
        return [program, *words]

    def _environment(self, name):
        said = {key: self.moved(value) for key, value in self.composed.environment(name).items()}
        health = self.folder / "health" / name
        return self.composed.baked.environment(
            **said
            | {"TASKKIT_HEALTH_DIR": str(health), "GUNICORN_CMD_ARGS": f"--bind=127.0.0.1:{self.ports['8000']}"}
            | {"TMPDIR": str(self.folder)}
            | self.more
        )


@pytest.fixture(scope="module")
def machine(bake, servers, tmp_path_factory):
    """A shop with all that can be watched, and its release done."""
    folder = tmp_path_factory.mktemp("machine")
    original = bake(broker="redis", flower="yes", observability="prometheus")
    baked = original.copy(folder / original.path.name)
    assert make_production_env(baked, "localhost")[1] == 0
    own = {"EMAIL_HOST": "mail.example", "CACHE_URL": "db://", **servers.environment(original)}
    composed = Composed(baked)
    for arguments in (
        ["manage.py", "migrate", "--noinput"],
        ["manage.py", "createcachetable"],
        ["manage.py", "collectstatic", "--noinput"],
    ):
        baked.run(*arguments, **composed.environment("release") | own)
    machine = Machine(composed, folder, own)
    try:
        yield machine
    finally:
        machine.close()


@pytest.mark.parametrize("name", ["web", "worker-customers", "beat", "relay", "exporter", "flower"])
def test_a_service_gets_healthy_and_ends_when_it_is_told_to(machine, name):
    assert machine.check(name)[0] == 1, "nothing runs, and the check does not see it"
    machine.start(name)
    machine.healthy(name)

    assert machine.stop(name) in (0, -signal.SIGTERM), machine.log(name)
    assert machine.check(name)[0] == 1
    assert not list(machine.folder.glob("shop-metrics-*")), "the folder of the metrics stays"


def test_redis_is_healthy_only_for_who_knows_its_password(machine):
    if shutil.which("redis-server") is None:
        unavailable("redis-server is not installed")
    service = machine.composed.services["redis"]
    command, test = (
        [machine.composed.fill(word) for word in words]
        for words in (service["command"], service["healthcheck"]["test"])
    )
    port, data = free_port(), machine.folder / "redis"
    data.mkdir()
    process = subprocess.Popen([*command, "--port", port, "--bind", "127.0.0.1"], cwd=data, stdout=subprocess.DEVNULL)

    def code(**environment):
        asked = [*test[1:2], "-p", port, *test[2:]]
        return subprocess.run(asked, env={**os.environ, **environment}, capture_output=True).returncode

    try:
        known = machine.composed.environment("redis")
        until(lambda: code(**known) == 0, 20, lambda: "redis does not get healthy")
        assert code() != 0
    finally:
        process.kill()
        process.wait(10)


class Visitor:
    """Asks Caddy by HTTPS."""

    def __init__(self, port, authority):
        self.port = port
        self.context = ssl.create_default_context(cafile=authority)

    def get(self, path, host="localhost", **headers):
        connection = http.client.HTTPSConnection(host, int(self.port), timeout=30)
        connection.sock = self.context.wrap_socket(
            socket.create_connection(("127.0.0.1", int(self.port)), 30), server_hostname=host
        )
        try:
            connection.request("GET", path, headers={"Host": host, **headers})
            answer = connection.getresponse()
            answer.text = answer.read().decode(errors="replace")
            return answer
        finally:
            connection.close()


@pytest.fixture(scope="module")
def visitor(machine):
    """The web and Flower run, and Caddy with its own file in front of them; only ports and addresses are others."""
    machine.start("web")
    machine.start("flower")
    port, folder = free_port(), machine.folder / "caddy"
    folder.mkdir()
    text = machine.composed.baked.text("deploy/compose/Caddyfile")
    for here, there in {
        "grace_period 30s": f"grace_period 1s\n\tskip_install_trust\n\thttp_port {free_port()}\n\thttps_port {port}"
        f"\n\tadmin 127.0.0.1:{machine.ports['2019']}",
        "dynamic a web 8000": f"to 127.0.0.1:{machine.ports['8000']}",
        "flower:5555": f"127.0.0.1:{machine.ports['5555']}",
    }.items():
        assert here in text
        text = text.replace(here, there)
    (folder / "Caddyfile").write_text(text)
    with open(machine.folder / "caddy.log", "wb") as log:
        process = subprocess.Popen(
            [tool("caddy"), "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")],
            env={
                **os.environ,
                **machine.composed.environment("caddy"),
                "XDG_DATA_HOME": str(folder),
                "HOME": str(folder),
            },
            stdout=log,
            stderr=log,
        )
    machine.running["caddy"] = process
    try:
        machine.healthy("web")
        machine.healthy("flower")
        machine.healthy("caddy")
        # Caddy signs for localhost itself.
        authority = folder / "caddy/pki/authorities/local/root.crt"
        until(authority.exists, 20, lambda: machine.log("caddy"))
        yield Visitor(port, authority)
    finally:
        process.terminate()
        process.wait(20)
        del machine.running["caddy"]
        for name in ("web", "flower"):
            machine.stop(name)


class TestThroughCaddy:
    def test_the_site_is_there(self, visitor):
        answer = visitor.get("/admin/login/")

        assert answer.status == 200, answer.text
        assert "csrfmiddlewaretoken" in answer.text

    def test_static_files_may_be_kept_for_ever(self, visitor, machine):
        [style] = (machine.composed.baked.path / "staticfiles/orders").glob("pages.*.css")
        answer = visitor.get(f"/static/orders/{style.name}")

        assert answer.status == 200
        assert "immutable" in answer.headers["Cache-Control"]

    def test_it_is_alive(self, visitor):
        assert visitor.get("/healthz").status == 200

    @pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/readyz", "/readyz?without=broker", "/%6detrics"])
    def test_what_is_for_machines_is_closed(self, visitor, path):
        answer = visitor.get(path)

        assert (answer.status, answer.text) == (404, "")

    def test_a_request_id_from_outside_is_not_taken(self, visitor):
        answer = visitor.get("/healthz", **{"X-Request-ID": FROM_OUTSIDE})

        assert len(answer.headers["X-Request-ID"]) == 36
        assert FROM_OUTSIDE not in answer.headers["X-Request-ID"]

    @pytest.mark.parametrize("host", ["localhost", "flower.localhost"])
    def test_browsers_are_told_what_they_may_do(self, visitor, host):
        headers = visitor.get("/healthz" if host == "localhost" else "/", host=host).headers

        assert headers["Strict-Transport-Security"].startswith("max-age=")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Permissions-Policy"]
        assert "Server" not in headers

    def test_other_hosts_get_nothing(self, visitor):
        with pytest.raises(ssl.SSLError):
            visitor.get("/", host="elsewhere.example")

    def test_flower_asks_for_its_password(self, visitor, machine):
        import base64

        password = machine.composed.environment("flower")["FLOWER_BASIC_AUTH"]
        basic = base64.b64encode(password.encode()).decode()

        assert visitor.get("/workers", host="flower.localhost").status == 401
        assert visitor.get("/workers", host="flower.localhost", Authorization=f"Basic {basic}").status == 200

    @pytest.mark.parametrize("path", ["/metrics", "/healthcheck"])
    def test_what_flower_shows_without_it_is_closed(self, visitor, path):
        assert visitor.get(path, host="flower.localhost").status == 404


class TestGunicorn:
    def test_prometheus_sees_what_all_processes_counted(self, visitor, machine):
        """As ops/prometheus.yml has it: by the name of the service, without HTTPS, with the token."""
        token = machine.composed.environment("web")["TASKKIT_METRICS_TOKEN"]
        connection = http.client.HTTPConnection("127.0.0.1", int(machine.ports["8000"]), timeout=30)
        try:
            connection.request("GET", "/metrics", headers={"Host": "web:8000", "Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()

        assert answer.status == 200, text
        assert len(list(machine.folder.glob("shop-metrics-*"))) == 1, "the processes share one folder"

    def test_its_processes_know_the_folder_before_anything_counts(self, machine):
        """prometheus_client looks once, when it is imported."""
        code = "import runpy, sys; runpy.run_path('gunicorn.conf.py'); print('prometheus_client' in sys.modules)"

        assert machine.composed.baked.run("-c", code, TMPDIR=str(machine.folder)).strip() == "False"

    def test_what_it_says_is_json(self, visitor, machine):
        lines = [line for line in machine.log("web").splitlines() if line]

        assert [json.loads(line) for line in lines if "Listening at" in line]
        assert all(line.startswith("{") for line in lines), machine.log("web")

    def test_it_has_no_log_of_requests_beside_caddys(self, visitor, machine):
        visitor.get("/healthz?whoever=asks")

        assert "whoever" not in machine.log("web")
        until(lambda: "whoever" in machine.log("caddy"), 10, lambda: machine.log("caddy"))
