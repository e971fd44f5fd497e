"""The image and the compose files: what the tools say, and the rules that keep tasks from being lost."""

import fnmatch
import json
import os
import re
import shutil
import stat
import subprocess

import pytest

from tests.template.composed import Composed, make_production_env
from tests.template.conftest import tool
from tests.template.pairs import partly

pytestmark = pytest.mark.template

VARIANTS = {
    "the defaults": {},
    "PostgreSQL and Redis": {
        "database": "postgresql",
        "broker": "redis",
        "results": "redis",
        "observability": "prometheus",
        "flower": "yes",
    },
    "MariaDB and RabbitMQ": {
        "database": "mariadb",
        "broker": "rabbitmq",
        "observability": "sentry",
        "flower": "yes",
        "python": "3.12",
        "django": "5.2",
    },
    "RabbitMQ and Redis": {"database": "postgresql", "broker": "rabbitmq", "results": "redis", "scheduler": "file"},
    "SQS": {"database": "mariadb", "broker": "sqs", "observability": "opentelemetry", "python": "3.14"},
    "SQLite and Redis": {"project": "web_shop2", "broker": "redis", "observability": "prometheus"},
    "SQLite and RabbitMQ": {"project": "x", "broker": "rabbitmq"},
    "a folder and Redis": {"results": "redis", "observability": "prometheus"},
}

#: What the reader fills in.
YOURS = {"EMAIL_HOST": "mail.shop.example", "AWS_REGION": "eu-central-1"}

#: They do their work and end.
ONE_SHOT = {"release", "backup"}

SIZES = {"cpus", "memory", "pids"}

PLANS = """
import json
import config, django

django.setup()
from config.celery import app
from django_taskkit.routing.processes import worker_process
from django_taskkit.routing.workers import worker_plans

app.loader.import_default_modules()
processes = [worker_process(plan, "config") for plan in worker_plans(app, cores=2)]
print(json.dumps({process.name: [process.stop_grace, *process.queues] for process in processes}))
"""


@pytest.fixture(scope="module", params=partly(VARIANTS, 2, str))
def baked(bake, request, tmp_path_factory):
    original = bake(deployment="compose", **VARIANTS[request.param])
    copy = original.copy(tmp_path_factory.mktemp("composed") / original.path.name)
    assert make_production_env(copy)[1] == 0
    return copy


@pytest.fixture(scope="module")
def composed(baked):
    return Composed(baked)


def dev(baked):
    """compose.dev.yaml, which is there for those who need a server."""
    if not (baked.path / "compose.dev.yaml").exists():
        pytest.skip("these answers need no server")
    return Composed(baked, "compose.dev.yaml", ".env")


def checked(*command, cwd, **environment):
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def docker_compose():
    """Compose, as a plugin or by itself; it needs no engine to check a file."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker"):
        asked = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=30)
        if asked.returncode == 0:
            return ["docker", "compose"]
    return pytest.skip("Docker Compose is not installed; its schema is checked all the same")


def seconds(duration):
    assert re.fullmatch(r"\d+s", duration), duration
    return int(duration[:-1])


class TestWhatTheToolsSay:
    def test_the_files_fit_the_compose_specification(self, baked):
        files = sorted(path.name for path in baked.path.glob("compose*.yaml"))

        checked(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *files, cwd=baked.path)

    def test_compose_reads_the_file_with_the_secrets_that_were_made(self, baked):
        checked(
            *docker_compose(),
            "--env-file",
            ".env.production",
            "--profile",
            "backup",
            "config",
            "--quiet",
            cwd=baked.path,
        )

    def test_compose_reads_the_file_for_development(self, baked):
        dev(baked)

        checked(*docker_compose(), "-f", "compose.dev.yaml", "config", "--quiet", cwd=baked.path)

    def test_hadolint_finds_nothing(self, baked):
        assert checked(tool("hadolint"), "Dockerfile", cwd=baked.path) == ""

    def test_caddy_takes_its_file(self, baked):
        file = baked.path / "deploy/compose/Caddyfile"

        checked(
            *(tool("caddy"), "validate", "--adapter", "caddyfile", "--config", file),
            cwd=baked.path,
            SITE_HOST="shop.example",
        )
        assert checked(tool("caddy"), "fmt", file, cwd=baked.path) == file.read_text(), "caddy fmt would change it"


def test_the_image_for_kubernetes_passes_hadolint_too(bake):
    baked = bake(deployment="kubernetes", database="postgresql", broker="redis")

    assert checked(tool("hadolint"), "Dockerfile", cwd=baked.path) == ""


class TestSecrets:
    def test_they_are_private_and_never_written_over(self, baked):
        file = baked.path / ".env.production"
        before = file.read_bytes()
        said, code = make_production_env(baked)

        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert (code, file.read_bytes()) == (1, before)
        assert "is there already" in said

    def test_they_are_not_those_of_development(self, composed):
        production, development = composed.values, Composed(composed.baked, env_file=".env").values
        secret = [name for name in production if name.endswith(("_KEY", "_PASSWORD", "_AUTH", "_TOKEN"))]

        assert "SECRET_KEY" in secret
        assert not [name for name in secret if production[name] and production[name] == development.get(name)]

    def test_all_that_compose_asks_for_was_made(self, composed):
        asked = composed.names - {"RELEASE"}

        assert asked <= {name for name, value in composed.values.items() if value}

    def test_without_them_compose_says_what_to_do(self, baked, tmp_path):
        with pytest.raises(AssertionError, match=r"make_env\.py HOST"):
            checked(*docker_compose(), "--env-file", "/dev/null", "config", "--quiet", cwd=baked.path)

    def test_a_name_that_is_none_is_refused(self, baked):
        said, code = make_production_env(baked, "https://shop.example/")

        assert code == 1
        assert "is not the name of a host" in said

    def test_git_does_not_see_them(self, baked):
        assert ".env.production" in baked.text(".gitignore").splitlines()

    @pytest.mark.parametrize("name", [".env", ".env.production", ".env.example", ".git/config", "deploy/.env", "a.pem"])
    def test_nothing_secret_gets_into_the_image(self, baked, name):
        patterns = [line for line in baked.text(".dockerignore").splitlines() if line and not line.startswith("#")]
        parts = name.split("/")
        leading = ["/".join(parts[: end + 1]) for end in range(len(parts))]

        assert not [pattern for pattern in patterns if pattern.startswith("!")]
        assert [
            (pattern, path)
            for pattern in patterns
            for path in leading
            if fnmatch.fnmatch(path, pattern.removeprefix("**/"))
        ]


class TestTheImage:
    def test_what_the_project_imports_gets_in(self, baked):
        patterns = [line for line in baked.text(".dockerignore").splitlines() if line and not line.startswith("#")]
        needed = ["config", "orders", "manage.py", "gunicorn.conf.py", "requirements.txt", "constraints.txt"]

        assert not [name for name in needed if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]

    def test_it_runs_as_a_number_and_has_no_shell_in_between(self, baked):
        lines = baked.text("Dockerfile").splitlines()
        users = [line for line in lines if line.startswith("USER ")]

        assert users[-1] == "USER 10001:10001"
        assert "FROM app" in lines[lines.index(users[-1]) :], "the last stage is not what runs as this user"
        assert not [line for line in lines if line.startswith(("ENTRYPOINT", "HEALTHCHECK", "SHELL"))]
        assert json.loads(lines[-1].removeprefix("CMD ")) == ["gunicorn", "-c", "gunicorn.conf.py", "config.wsgi"]

    def test_its_static_files_are_collected_without_a_server(self, baked, tmp_path):
        """The very line of the Dockerfile, with what it says about the environment."""
        joined = baked.text("Dockerfile").replace("\\\n", " ")
        [line] = [line for line in joined.splitlines() if "collectstatic" in line]
        given = dict(re.findall(r"(\w+)=(\S+)", line.removeprefix("RUN ").partition(" python ")[0]))
        copy = baked.copy(tmp_path / baked.path.name)

        copy.run(
            *("manage.py", "collectstatic", "--noinput"),
            **{**given, "VAR_DIR": str(tmp_path / "var")},
            DJANGO_SETTINGS_MODULE="config.settings.production",
        )
        assert list((copy.path / "staticfiles").rglob("pages.*.css"))


class TestEveryService:
    def test_says_how_it_is(self, composed):
        for name, service in composed.services.items():
            check = service["healthcheck"]
            if name in ONE_SHOT:
                assert check == {"disable": True}
            else:
                assert check["test"][0] == "CMD", f"{name}: a shell is no part of a health check"
                assert check.keys() >= {"interval", "timeout", "retries", "start_period"}, name

    def test_is_given_time_to_stop_and_a_size(self, composed):
        for name, service in composed.services.items():
            assert seconds(service["stop_grace_period"]) >= 15, name
            assert service["deploy"]["resources"]["limits"].keys() == SIZES, name

    def test_has_no_rights_that_it_does_not_need(self, composed):
        for name, service in composed.services.items():
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "caddy" else []), name
            assert not service.keys() & {"privileged", "network_mode", "pid"}, name

    def test_comes_back_and_does_not_fill_the_disk(self, composed):
        for name, service in composed.services.items():
            assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped"), name
            assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name

    def test_has_a_version(self, composed):
        for name, service in composed.services.items():
            if name not in composed.own:
                assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", service["image"]), name

    def test_can_be_there_more_than_once(self, composed):
        assert not [name for name, service in composed.services.items() if "container_name" in service]

    def test_waits_for_the_release_and_for_servers_that_are_well(self, composed):
        for name, service in composed.own.items():
            needed = {"db"} if name == "backup" else {"db", "redis", "cache", "rabbitmq"}
            expected = {other: {"condition": "service_healthy"} for other in needed & composed.services.keys()}
            if name not in ONE_SHOT:
                expected["release"] = {"condition": "service_completed_successfully"}
            assert (service["depends_on"] or {}) == expected, name


def test_only_caddy_is_reached_from_outside(composed):
    published = {name: service["ports"] for name, service in composed.services.items() if "ports" in service}

    assert published == {"caddy": ["80:80", "443:443", "443:443/udp"]}


def test_servers_have_no_way_out(composed):
    assert composed.file["networks"]["servers"] == {"internal": True}
    for name in {"db", "redis", "cache", "rabbitmq"} & composed.services.keys():
        assert composed.services[name]["networks"] == ["servers"]


def test_there_is_a_worker_for_each_lane_and_it_has_time_to_stop(baked, composed):
    environment = composed.environment("worker-default") | YOURS | {"VAR_DIR": str(baked.path / "var")}
    plans = json.loads(baked.run("-c", PLANS, **environment).splitlines()[-1])
    workers = {name: service for name, service in composed.services.items() if name.startswith("worker-")}

    assert workers.keys() == plans.keys()
    for name, (grace, queue) in plans.items():
        assert seconds(workers[name]["stop_grace_period"]) == grace, name
        assert workers[name]["command"] == ["python", "manage.py", "taskkit", "worker", name.removeprefix("worker-")]
        assert workers[name]["healthcheck"]["test"][-2:] == ["--queue", queue]


def test_no_shell_is_between_the_init_and_a_process_of_ours(composed):
    for name, service in composed.own.items():
        assert service["init"] is True, name
        assert isinstance(service["command"], list), name
        assert "entrypoint" not in service, name
        if name not in ONE_SHOT:
            assert service["command"][0] in ("python", "gunicorn"), name


def test_signs_of_life_are_each_containers_own(composed):
    for name in composed.own:
        environment = composed.environment(name)
        assert not environment["TASKKIT_HEALTH_DIR"].startswith(environment["VAR_DIR"]), name


def test_what_production_needs_is_there_and_django_has_nothing_to_say(baked, composed, tmp_path):
    environment = composed.environment("web") | YOURS | {"VAR_DIR": str(tmp_path / "var")}

    said = baked.run("manage.py", "check", "--deploy", "--fail-level", "WARNING", **environment)
    assert "no issues" in said


def test_a_backup_starts_nothing_that_changes_the_database(composed):
    backup = composed.services["backup"]

    assert backup["profiles"] == ["backup"]
    assert "release" not in (backup["depends_on"] or {})
    assert os.access(composed.baked.path / backup["command"][1], os.X_OK)


def test_the_clients_of_a_backup_fit_the_server(baked, composed):
    """pg_dump refuses a server that is newer than itself."""
    if baked.answers["database"] != "postgresql":
        pytest.skip("only pg_dump is so strict")
    [major] = re.findall(r"postgresql-client-(\d+)", baked.text("Dockerfile"))

    assert composed.services["db"]["image"].startswith(f"postgres:{major}.")


def test_development_has_the_same_servers_on_this_machine_alone(baked, composed):
    development = dev(baked)
    for name, service in development.services.items():
        assert service["image"].removesuffix("-management") == composed.services[name]["image"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["healthcheck"]["test"][0] == "CMD", name
    assert development.names <= {name for name, value in development.values.items() if value}
    assert development.file["name"] != composed.file["name"]
