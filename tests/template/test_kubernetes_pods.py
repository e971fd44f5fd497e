"""What the pods of a generated project start, started here with their own commands, probes and settings."""

import contextlib
import http.client
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.template.conftest import unavailable
from tests.template.kustomized import Tree, app, containers, pod

pytestmark = [pytest.mark.template, pytest.mark.boot]


class Pod:
    """The processes of a manifest on this machine: its commands and probes, its folders and ports moved."""

    def __init__(self, tree, workload, folder, settings):
        self.tree, self.workload, self.folder = tree, workload, folder
        self.log = folder / "log"
        self.ports = {}
        env = {"POD_IP": "127.0.0.1", "POD_HOSTS": settings["ALLOWED_HOSTS"]}
        for each in app(workload).get("env", []):
            if "value" in each:
                value = re.sub(r"\$\((\w+)\)", lambda match: env[match[1]], each["value"])
                env[each["name"]] = self.moved(value)
        self.environment = {**settings, **env, "VAR_DIR": str(folder / "var")}
        self.environment["TASKKIT_HEALTH_DIR"] = str(folder / "run" / "health")
        (folder / "run").mkdir(parents=True)
        self.process = None

    def moved(self, word):
        """The same word, with a port that is free here in place of the container's."""

        def free(match):
            with socket.socket() as asked:
                asked.bind(("127.0.0.1", 0))
                port = self.ports.setdefault(match[1], asked.getsockname()[1])
            return f"127.0.0.1:{port}"

        word = re.sub(r"0\.0\.0\.0:(\d+)", free, word)
        if word.startswith("--port="):
            return "--port=" + re.sub(r"(\d+)$", free, word).rpartition(":")[2]
        return word.replace("=0.0.0.0", "=127.0.0.1")

    def command(self, container):
        words = [*container["command"], *container.get("args", [])]
        return [sys.executable if word == "python" else self.moved(word) for word in words]

    def ask(self, command):
        """Run something beside it to its end; return its exit code and what it said."""
        done = subprocess.run(
            command,
            cwd=self.tree.baked.path,
            env=self.tree.baked.environment(**self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout

    def init(self, name):
        (container,) = [each for each in containers(self.workload) if each["name"] == name]
        return self.ask(self.command(container))

    def start(self):
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self.command(app(self.workload)),
                cwd=self.tree.baked.path,
                env=self.tree.baked.environment(**self.environment),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def probe(self, name):
        """Ask as the kubelet would; return whether it is well, and what was said."""
        probe = app(self.workload)[name]
        if "exec" in probe:
            code, said = self.ask([sys.executable if word == "python" else word for word in probe["exec"]["command"]])
            return code == 0, said
        (port,) = self.ports.values()
        if "tcpSocket" in probe:
            with socket.socket() as asked:
                return asked.connect_ex(("127.0.0.1", port)) == 0, ""
        headers = {each["name"]: each["value"] for each in probe["httpGet"].get("httpHeaders", [])}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{probe['httpGet']['path']}", headers=headers)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
                return answer.status == 200, answer.read().decode()
        except OSError as exc:
            return False, str(exc)

    def wait_until_well(self, name):
        deadline = time.monotonic() + 90
        while not (answer := self.probe(name))[0]:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, (answer[1], self.log.read_text())
            time.sleep(0.5)

    def end(self):
        """Stop as Kubernetes does; return how long it took."""
        began = time.monotonic()
        self.process.terminate()
        self.process.wait(pod(self.workload)["spec"]["terminationGracePeriodSeconds"])
        return time.monotonic() - began

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def settled(bake, servers, tmp_path_factory):
    """A tree, and settings with servers that are there."""
    answers = {
        "broker": "redis",
        "observability": "prometheus",
        "flower": "yes",
        "database": "postgresql",
        "results": "redis",
        "project": "shop",
    }
    folder = tmp_path_factory.mktemp("settled")
    project = bake(deployment="kubernetes", **answers).copy(folder / "srv")
    (project.path / ".env").unlink()  # the image has none either
    tree = Tree(project, folder)
    return tree, {**tree.environment(folder), **servers.environment(tree.baked)}


@pytest.fixture(scope="module")
def released(settled, tmp_path_factory):
    """The same, its release done; what a new pod waits for was not there before, and is there now."""
    tree, settings = settled
    web = Pod(tree, tree.plain.one("Deployment", "web"), tmp_path_factory.mktemp("pod"), settings)
    code, _ = web.init("migrations")
    assert code == 1
    job = Pod(tree, tree.release.one("Job", "release"), tmp_path_factory.mktemp("pod"), settings)
    for container in containers(job.workload):
        code, said = job.ask(job.command(container))
        assert code == 0, said
    code, said = web.init("migrations")
    assert code == 0, said
    return tree, settings


@pytest.fixture
def start(released, tmp_path):
    tree, settings = released
    started = []

    def start(kind, name, **more):
        one = Pod(tree, tree.plain.one(kind, name), tmp_path / name, {**settings, **more})
        started.append(one)
        one.start()
        return one

    yield start
    for one in started:
        one.kill()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Deployment", "web"),
        ("Deployment", "beat"),
        ("Deployment", "exporter"),
        ("Deployment", "flower"),
        ("StatefulSet", "relay"),
        ("StatefulSet", "worker-geocoding"),
    ],
)
def test_what_a_pod_starts_is_well_and_stops_in_time(start, kind, name):
    one = start(kind, name)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        one.wait_until_well(probe)
    grace = pod(one.workload)["spec"]["terminationGracePeriodSeconds"]
    assert one.end() < grace
    assert one.process.returncode in (0, -signal.SIGTERM)  # the second: before it had begun to listen to signals


def test_prometheus_gets_the_numbers_of_the_web(start, released):
    tree, settings = released
    web = start("Deployment", "web")
    web.wait_until_well("startupProbe")
    (endpoint,) = tree.full.one("PodMonitor", "web")["spec"]["podMetricsEndpoints"]
    token = settings[endpoint["authorization"]["credentials"]["key"]]
    (port,) = web.ports.values()
    url = f"http://127.0.0.1:{port}{endpoint['path']}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}), timeout=10) as answer:
        assert (answer.status, answer.headers.get_content_type()) == (200, "text/plain")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        opener.open(url, timeout=10)


def test_who_comes_by_the_ingress_learns_nothing_that_is_for_machines_inside(start, released):
    _, settings = released
    web = start("Deployment", "web")
    web.wait_until_well("startupProbe")
    (port,) = web.ports.values()
    token = {"Host": settings["ALLOWED_HOSTS"], "Authorization": f"Bearer {settings['TASKKIT_METRICS_TOKEN']}"}

    def status(path, **headers):
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(asked):
            asked.request("GET", path, headers={**token, **headers})
            return asked.getresponse().status

    inside = ("/readyz", "/readyz?without=broker", "/%72eadyz", "/metrics")
    assert {path: status(path) for path in inside} == dict.fromkeys(inside, 200)
    for scheme in ("http", "https"):
        come = {"X-Forwarded-Proto": scheme}
        assert {path: status(path, **come) for path in inside} == dict.fromkeys(inside, 404)
        assert status("/healthz", **come) == 200


def test_flower_starts_with_a_password_only(start):
    one = start("Deployment", "flower", FLOWER_BASIC_AUTH="")
    assert one.process.wait(60) != 0
    assert "FLOWER_BASIC_AUTH is empty" in one.log.read_text()


def test_the_job_of_the_night_saves_the_database(released, tmp_path):
    if not shutil.which("pg_dump"):
        unavailable("pg_dump is not installed")
    tree, settings = released
    job = Pod(tree, tree.plain.one("CronJob", "backup"), tmp_path / "pod", settings)
    (container,) = containers(job.workload)
    job.environment["PYTHON"] = sys.executable
    words = [str(tmp_path / "backups") if word == "/backups" else word for word in job.command(container)]
    code, said = job.ask(words)
    assert code == 0, said
    (made,) = (tmp_path / "backups").iterdir()
    assert (made / "database.dump").stat().st_size > 0


def test_a_worker_whose_broker_is_away_waits_and_is_not_restarted(start):
    one = start("StatefulSet", "worker-customers", BROKER_URL="redis://127.0.0.1:1/0")
    deadline = time.monotonic() + 60
    while "Cannot connect" not in one.log.read_text():
        assert time.monotonic() < deadline, one.log.read_text()
        time.sleep(0.2)
    one.wait_until_well("startupProbe")
    assert one.probe("livenessProbe")[0]
    assert not one.probe("readinessProbe")[0]


def test_keda_finds_a_message_that_waits(released):
    redis = pytest.importorskip("redis")
    tree, settings = released
    tree.baked.run(
        "manage.py", "shell", "-c", "from orders.tasks import nightly_digest; nightly_digest.delay()", **settings
    )
    (trigger,) = tree.full.one("ScaledObject", "worker-default")["spec"]["triggers"]
    with redis.Redis.from_url(settings["BROKER_URL"]) as broker:
        assert broker.llen(trigger["metadata"]["listName"]) == 1
