"""What the files of the deployment start, how long they wait for its end, and which variables they name."""

import re
{%- if cookiecutter.deployment in ("compose", "kubernetes") %}
import shlex
{%- endif %}
from collections.abc import Iterator
{%- if cookiecutter.deployment == "supervisor" %}
from configparser import RawConfigParser, SectionProxy
{%- endif %}
from dataclasses import dataclass
from pathlib import Path
{%- if cookiecutter.deployment in ("compose", "kubernetes") %}
from typing import Any

import yaml
{%- else %}
{% endif %}
from django.conf import settings

ROOT: Path = settings.BASE_DIR


@dataclass(frozen=True)
class Process:
    """One process, as a file says it."""

    name: str
    file: str
    command: str
    grace: float
    """Seconds between TERM and KILL."""

    option: str
    """What the file calls them, with a place for the number."""

    copies: int
    sources: frozenset[str]
    """Where its environment comes from, besides the file itself."""

    before: float = 0
    """Seconds that the file counts in, and that go by before TERM."""

    def with_grace(self, seconds: float) -> str:
        """What the file has to say for a grace of so many seconds."""
        return self.option.format(f"{seconds + self.before:g}")

    @property
    def lane(self) -> str | None:
        found = re.search(r"manage\.py taskkit worker (\S+)", self.command)
        return found[1] if found else None

{% if cookiecutter.deployment == "compose" %}
#: One file with everything that production has been told.
SOURCES = {".env.production"}

#: Of the servers, and of containers that are not the project's.
SERVERS_OWN = re.compile(r"(POSTGRES|MARIADB|REDIS|RABBITMQ)_\w+|REDISCLI_AUTH|SITE_HOST|COMPOSE_\w+")


def _services() -> dict[str, dict[str, Any]]:
    with (ROOT / "compose.yaml").open(encoding="utf-8") as file:
        return yaml.safe_load(file)["services"]


def processes() -> Iterator[Process]:
    for name, service in _services().items():
        if "build" in service:
            yield Process(
                name=name,
                file="compose.yaml",
                command=shlex.join(service["command"]),
                grace=_seconds(service.get("stop_grace_period", "10s")),
                option="stop_grace_period: {}s",
                copies=service.get("deploy", {}).get("replicas", 1),
                sources=frozenset(service.get("env_file", [])),
            )


def _seconds(duration: str) -> float:
    parts = re.findall(r"(\d+)(h|m|s)", duration)
    assert "".join(map("".join, parts)) == duration, f"compose.yaml: {duration!r} is read by nobody here; write seconds"
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)


def variables() -> dict[str, str]:
    """The names of variables, and the file in which each is."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    named = {name for service in _services().values() for name in service.get("environment", {})}
    return dict.fromkeys(named | set(re.findall(r"(?<!\$)\$\{(\w+)", text)), "compose.yaml")
{%- elif cookiecutter.deployment == "kubernetes" %}
FOLDER = ROOT / "deploy" / "kubernetes"

#: Settings and secrets, each from a file of the overlay.
SOURCES = {"config", "secrets"}

#: For KEDA, which has no other way to the broker, and for what Kubernetes puts together by itself.
SERVERS_OWN = re.compile(r"REDIS_(ADDRESS|PASSWORD)|POD_(IP|HOSTS)")


def _documents(*files: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in files:
        with file.open(encoding="utf-8") as opened:
            for document in yaml.safe_load_all(opened):
                yield file, document


def _resources(folder: str) -> list[Path]:
    [(_, kustomization)] = _documents(FOLDER / folder / "kustomization.yaml")
    return [FOLDER / folder / name for name in kustomization["resources"]]


def _containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    pod = document.get("spec", {}).get("template", {}).get("spec", {})
    return [*pod.get("initContainers", []), *pod.get("containers", [])]


def processes() -> Iterator[Process]:
    [(_, pod)] = _documents(FOLDER / "pod" / "pod.yaml")
    [(_, worker), *_] = _documents(FOLDER / "worker" / "worker.yaml")
    [start] = [container["command"] for container in _containers(worker)]
    sources = frozenset(
        reference["name"] for source in _containers(pod)[-1]["envFrom"] for reference in source.values()
    )
    lanes = [folder / "lane.yaml" for folder in _resources("lanes")]
    for file, document in _documents(*_resources("base"), *lanes):
        if document["kind"] in ("Deployment", "StatefulSet"):
            spec = document["spec"]["template"]["spec"]
            [container] = spec["containers"]
            before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            yield Process(
                name=file.parent.name if file in lanes else document["metadata"]["name"],
                file=str(file.relative_to(ROOT)),
                command=shlex.join([*container.get("command", start), *container.get("args", [])]),
                grace=spec.get("terminationGracePeriodSeconds", 30) - before,
                option="terminationGracePeriodSeconds: {}",
                copies=document["spec"].get("replicas", 0),
                sources=sources,
                before=before,
            )


def scaled() -> set[str]:
    """The names of what KEDA makes more of."""
    documents = _documents(*sorted((FOLDER / "components" / "keda").glob("*.yaml")))
    objects = [document for _, document in documents if document.get("kind") == "ScaledObject"]
    return {scaled["spec"]["scaleTargetRef"]["name"] for scaled in objects}


def variables() -> dict[str, str]:
    """The names of variables, and the file in which each is."""
    named = {}
    for file, document in _documents(*sorted(FOLDER.rglob("*.yaml"))):
        for container in _containers(document):
            named |= {entry["name"]: str(file.relative_to(ROOT)) for entry in container.get("env", [])}
        for target in document.get("spec", {}).get("secretTargetRef", []):
            named[target["key"]] = str(file.relative_to(ROOT))
    for file in (FOLDER / "overlays" / "production" / "settings").glob("*.env*"):
        lines = file.read_text(encoding="utf-8").splitlines()
        named |= {
            line.partition("=")[0]: str(file.relative_to(ROOT)) for line in lines if "=" in line and line[0] != "#"
        }
    return named
{%- elif cookiecutter.deployment == "systemd" %}
FOLDER = ROOT / "deploy" / "systemd"

#: The variables of .env.example, the release, and where units may write.
SOURCES = {
    "/etc/{{ cookiecutter.project }}/env",
    "/etc/{{ cookiecutter.project }}/release",
    "/srv/{{ cookiecutter.project }}/deploy/systemd/paths.env",
}

SERVERS_OWN = re.compile(r"PYTHON\w+")


def _unit(name: str) -> tuple[Path, dict[str, list[str]]]:
    """The file of a unit, and what all of its files say: values by name."""
    template, instance = re.fullmatch(r"([^@]+@?)(\w*)\.service", name).groups()
    file = FOLDER / f"{template}.service"
    assert file.is_file(), f"{name} has no file {file.relative_to(ROOT)}"
    options: dict[str, list[str]] = {}
    for part in (file, *sorted((FOLDER / f"{name}.d").glob("*.conf"))):
        for line in part.read_text(encoding="utf-8").splitlines():
            key, equals, value = line.partition("=")
            if equals and key.isalpha():
                options.setdefault(key, []).append(value.strip().replace("%i", instance))
    return file, options


def wanted() -> list[str]:
    """The services that the target starts."""
    text = (FOLDER / "{{ cookiecutter.project }}.target").read_text(encoding="utf-8")
    return re.findall(r"^Wants=(\S+)$", text, re.MULTILINE)


def processes() -> Iterator[Process]:
    for name in wanted():
        file, options = _unit(name)
        yield Process(
            name=name,
            file=str(file.relative_to(ROOT)),
            command=options["ExecStart"][-1],
            grace=float(options.get("TimeoutStopSec", ["90"])[-1].removesuffix("s")),
            option="TimeoutStopSec={}",
            copies=1,
            sources=frozenset(path.removeprefix("-") for path in options.get("EnvironmentFile", [])),
        )


def variables() -> dict[str, str]:
    """The names of variables, and the file in which each is."""
    named = {}
    for file in sorted(path for path in FOLDER.rglob("*") if path.suffix in (".service", ".conf", ".env")):
        begin = "" if file.suffix == ".env" else "Environment="
        for found in re.findall(rf"^{begin}([A-Z]\w*)=", file.read_text(encoding="utf-8"), re.MULTILINE):
            named[found] = str(file.relative_to(ROOT))
    return named
{%- else %}
FOLDER = ROOT / "deploy" / "supervisor"
FILE = FOLDER / "{{ cookiecutter.project }}.conf"

#: The folder with .env, which the settings read.
SOURCES = {"/srv/{{ cookiecutter.project }}"}

SERVERS_OWN = re.compile(r"PYTHON\w+")


def _programs() -> dict[str, SectionProxy]:
    """The programs that Supervisor starts."""
    parser = RawConfigParser(comment_prefixes=(";",), inline_comment_prefixes=(" ;",))
    parser.read(FILE, encoding="utf-8")
    programs = [name for name in parser.sections() if name.startswith("program:")]
    return {name.removeprefix("program:"): parser[name] for name in programs}


def processes() -> Iterator[Process]:
    for name, program in _programs().items():
        yield Process(
            name=name,
            file=str(FILE.relative_to(ROOT)),
            command=program["command"],
            grace=program.getfloat("stopwaitsecs", 10),
            option="stopwaitsecs={}",
            copies=program.getint("numprocs", 1),
            sources=frozenset([program["directory"]]),
        )


def variables() -> dict[str, str]:
    """The names of variables, and the file in which each is."""
    said = ",".join(program.get("environment", "") for program in _programs().values())
    return dict.fromkeys(re.findall(r"([A-Z]\w*)=", said), str(FILE.relative_to(ROOT)))
{%- endif %}
