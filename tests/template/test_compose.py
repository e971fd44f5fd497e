"""The image and the compose files: what the tools say, and the rules that keep tasks from being lost."""

import fnmatch
import json
import os
import re
import shutil
import stat
import subprocess

import pytest

from tests.template.composed import RELEASE, Composed, make_production_env
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


#: In place of Docker: writes down what it is asked to do, and for which release.
DOCKER = """\
#!/bin/sh
printf '%s: %s\\n' "$RELEASE" "$*" >>"$CALLS"
case "$*" in
    *"$FAILS"*) exit 1 ;;
    "compose config --services") printf '%s\\n' $SERVICES ;;
    "compose ps --quiet worker-customers") printf '%s\\n' one two three ;;
    "compose ps --quiet worker-geocoding") printf '%s\\n' one two ;;
    "compose ps --quiet web") ;;
    "compose ps --quiet "*) echo one ;;
esac
"""


class Deployment:
    """deploy/compose/deploy.sh in a project whose last release is v0."""

    def __init__(self, baked, folder):
        self.baked = baked.copy(folder / baked.path.name)
        (self.baked.path / ".env.release").write_text("RELEASE=v0\n")
        self.calls_file = folder / "calls"
        self.tools = folder / "tools"
        self.tools.mkdir()
        (self.tools / "docker").write_text(DOCKER)
        (self.tools / "docker").chmod(0o755)
        services = Composed(self.baked).services
        self.names = [name for name, service in services.items() if not service.get("profiles")]

    def run(self, *arguments, fails="nothing"):
        self.calls_file.write_text("")
        return subprocess.run(
            [self.baked.path / "deploy/compose/deploy.sh", *arguments],
            env={
                **os.environ,
                "PATH": f"{self.tools}:{os.environ['PATH']}",
                "CALLS": str(self.calls_file),
                "FAILS": fails,
                "SERVICES": " ".join(self.names),
                "RELEASE": "of somebody else",
            },
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
        )

    @property
    def calls(self):
        """What Docker was asked to do, without questions."""
        found = [line.partition(": ")[2] for line in self.calls_file.read_text().splitlines()]
        return [call for call in found if not re.search(r"compose (config|ps) |image inspect", call)]

    @property
    def ups(self):
        return [call for call in self.calls if call.startswith("compose up")]

    @property
    def release(self):
        return (self.baked.path / ".env.release").read_text()


@pytest.fixture
def deployment(baked, tmp_path):
    return Deployment(baked, tmp_path)


class TestADeployment:
    def test_migrates_while_the_old_release_runs_then_workers_then_the_web(self, deployment):
        done = deployment.run()
        steps = [*deployment.calls]

        assert done.returncode == 0, done.stderr
        first_up = steps.index(deployment.ups[0])
        assert [step for step in steps[:first_up] if " build " in step]
        assert steps[first_up - 1] == "compose run --rm --no-TTY release"
        *each, rest = deployment.ups
        assert [up.split()[-1] for up in each] == [name for name in deployment.names if name.startswith("worker-")]
        assert all(" --no-deps " in up for up in each)
        assert "worker-reports=1" in rest
        assert "web=1" in rest
        assert all(" --wait " in up and " --no-build " in up for up in deployment.ups)

    def test_every_command_is_told_the_release_and_it_is_written_down(self, deployment):
        deployment.run()
        told = {line.partition(": ")[0] for line in deployment.calls_file.read_text().splitlines()}

        [release] = told
        assert release not in ("of somebody else", "v0", "")
        assert deployment.release == f"RELEASE={release}\n"

    @pytest.mark.parametrize("step", ["build", "run --rm --no-TTY release"])
    def test_if_image_or_migrations_fail_what_ran_goes_on(self, deployment, step):
        done = deployment.run(fails=f" {step}")

        assert done.returncode == 1
        assert deployment.ups == []
        assert deployment.release == "RELEASE=v0\n"

    def test_a_worker_that_does_not_come_up_ends_it(self, deployment):
        done = deployment.run(fails="compose up ")

        assert done.returncode == 1
        assert len(deployment.ups) == 1
        assert "Before it was v0." in done.stderr

    def test_what_was_scaled_stays_so_but_for_geocoding(self, deployment):
        deployment.run()

        assert all("--scale worker-customers=3" in up for up in deployment.ups if up.endswith("worker-customers"))
        assert "--scale worker-customers=3" in deployment.ups[-1]
        assert "geocoding=" not in " ".join(deployment.ups)

    def test_the_way_back_builds_nothing_and_needs_an_image_that_is_there(self, deployment):
        assert deployment.run("v0.9").returncode == 0
        assert not [call for call in deployment.calls if " build " in call]
        assert deployment.release == "RELEASE=v0.9\n"

        refused = deployment.run("v0.8", fails="image inspect")
        assert (refused.returncode, deployment.calls) == (1, [])
        assert "There is no image" in refused.stderr

    def test_what_containers_read_they_may_read_and_are_told_to(self, deployment):
        for folder in ("deploy/compose", "ops"):
            subprocess.run(["chmod", "-R", "go=", deployment.baked.path / folder], check=True)
        deployment.run()

        for folder in ("deploy/compose", "ops"):
            for path in (deployment.baked.path / folder, *(deployment.baked.path / folder).iterdir()):
                mode = stat.S_IMODE(path.stat().st_mode)
                assert mode & 0o044 == 0o044, path
                assert not path.is_dir() or mode & 0o011 == 0o011, path
        reloads = [call for call in deployment.calls if call.startswith("compose exec")]
        assert reloads[0].startswith("compose exec --no-TTY caddy caddy reload")
        assert any("prometheus" in call for call in reloads) == ("prometheus" in deployment.names)

    def test_shellcheck_finds_nothing(self, baked):
        assert checked(tool("shellcheck"), "deploy/compose/deploy.sh", cwd=baked.path) == ""


def test_no_single_file_is_mounted(baked, composed):
    """git puts a new file in its place, and the container keeps the old one."""
    for name, service in composed.services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith("./") or (baked.path / source).is_dir(), name


def test_cron_makes_the_backup_of_the_release_that_is_in_service(baked):
    [line] = [line for line in baked.text(f"deploy/compose/{baked.path.name}.cron").splitlines() if line[0] != "#"]

    assert "COMPOSE_ENV_FILES=.env.production,.env.release" in line
    assert " run --rm --no-TTY backup " in line


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
            RELEASE=RELEASE,
        )

    def test_without_a_release_compose_runs_none(self, baked):
        with pytest.raises(AssertionError, match=r"COMPOSE_ENV_FILES=\.env\.production,\.env\.release"):
            checked(*docker_compose(), "--env-file", ".env.production", "config", "--quiet", cwd=baked.path, RELEASE="")

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
            checked(*docker_compose(), "--env-file", "/dev/null", "config", "--quiet", cwd=baked.path, RELEASE=RELEASE)

    def test_a_name_that_is_none_is_refused(self, baked):
        said, code = make_production_env(baked, "https://shop.example/")

        assert code == 1
        assert "is not the name of a host" in said

    def test_git_does_not_see_them(self, baked):
        assert {".env.production", ".env.release"} <= set(baked.text(".gitignore").splitlines())

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

    def test_its_user_can_read_it_whatever_the_umask_of_the_checkout(self, baked):
        copies = [
            line for line in baked.text("Dockerfile").splitlines() if line.startswith("COPY ") and line.endswith(" .")
        ]

        assert copies == ["COPY --chmod=u=rwX,go=rX . ."]

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

    def test_waits_for_servers_that_are_well_and_migrates_nothing_by_the_way(self, composed):
        for name, service in composed.own.items():
            needed = {"db"} if name == "backup" else {"db", "redis", "cache", "rabbitmq"}
            expected = {other: {"condition": "service_healthy"} for other in needed & composed.services.keys()}
            assert service.get("depends_on", {}) == expected, name
        assert composed.services["release"]["profiles"] == ["release"]


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
    assert "release" not in backup["depends_on"]
    assert os.access(composed.baked.path / backup["command"][1], os.X_OK)


def test_the_clients_of_a_backup_fit_the_server(baked, composed):
    """pg_dump refuses a server that is newer than itself."""
    if baked.answers["database"] != "postgresql":
        pytest.skip("only pg_dump is so strict")
    [major] = re.findall(r"postgresql-client-(\d+)", baked.text("Dockerfile"))

    assert composed.services["db"]["image"].startswith(f"postgres:{major}.")


@pytest.mark.parametrize(("ci", "name"), [("github", ".github/workflows/ci.yml"), ("gitlab", ".gitlab-ci.yml")])
@pytest.mark.parametrize("servers", [("postgresql", "redis"), ("mariadb", "rabbitmq")])
def test_ci_has_the_same_servers(bake, ci, name, servers):
    database, broker = servers
    baked = bake(ci=ci, database=database, broker=broker)
    services = Composed(baked).services
    images = {services[server]["image"] for server in {"db", "redis", "rabbitmq"} & services.keys()}

    assert images == set(re.findall(r"(?:postgres|mariadb|redis|rabbitmq):\d+\.[\w.-]+", baked.text(name)))


def test_development_has_the_same_servers_on_this_machine_alone(baked, composed):
    development = dev(baked)
    for name, service in development.services.items():
        assert service["image"].removesuffix("-management") == composed.services[name]["image"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["healthcheck"]["test"][0] == "CMD", name
    assert development.names <= {name for name, value in development.values.items() if value}
    assert development.file["name"] != composed.file["name"]
