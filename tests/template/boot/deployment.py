"""The processes that a project's deployment files name: the command of each, and how long it has for its end."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.live.waiting import unavailable

LANES = ("customers", "reports", "geocoding", "default")

#: Ends by itself, or is no process of the project's own.
OTHERS = ("release", "backup")


@dataclass(frozen=True)
class Service:
    name: str
    """web, worker-LANE, beat, relay, flower, exporter."""

    command: tuple[str, ...]
    grace: float
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of the project's variables, those that only this process is given."""


def services(project: Path, deployment: str) -> list[Service]:
    """What has to run, as the files say."""
    found = {service.name: service for service in READERS[deployment](project)}
    missing = {"web", "beat", "relay", *(f"worker-{lane}" for lane in LANES)} - set(found)
    assert not missing, f"{deployment} starts no {missing}"
    return list(found.values())


def supervisor(project: Path) -> Iterator[Service]:
    file = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    file.read(project / "deploy" / "supervisor" / f"{project.name}.conf")
    for section in file.sections():
        if section.startswith("program:"):
            program = file[section]
            assert program["stopasgroup"] == "false"
            yield Service(
                section.removeprefix(f"program:{project.name}-"),
                tuple(shlex.split(program["command"])),
                program.getfloat("stopwaitsecs"),
                _metrics_port(re.findall(r'(\w+)="([^"]*)"', program.get("environment", ""))),
            )


def systemd(project: Path) -> Iterator[Service]:
    folder = project / "deploy" / "systemd"
    for path in sorted(folder.glob(f"{project.name}-*.service")):
        unit = path.read_text()
        if "Type=oneshot" in unit:
            continue
        name = path.stem.removeprefix(f"{project.name}-")
        for lane in LANES if name == "worker@" else [""]:
            lines = unit
            for more in sorted((folder / f"{path.stem}{lane}.service.d").glob("*.conf")):
                lines += more.read_text()
            said = re.findall(r"^(\w+)=(.*)$", lines.replace("%i", lane), re.MULTILINE)
            values = dict(said)
            assert values["KillMode"] == "mixed", path
            variables = [value.partition("=")[::2] for key, value in said if key == "Environment"]
            yield Service(
                f"worker-{lane}" if lane else name,
                tuple(shlex.split(values["ExecStart"].removeprefix("/usr/bin/env "))),
                float(values["TimeoutStopSec"]),
                _metrics_port(variables),
            )


def compose(project: Path) -> Iterator[Service]:
    import yaml

    file = yaml.safe_load((project / "compose.yaml").read_text())
    for name, service in file["services"].items():
        if "build" in service and name not in OTHERS:
            yield Service(
                name,
                tuple(service["command"]),
                float(service["stop_grace_period"].removesuffix("s")),
                _metrics_port(service["environment"].items()),
            )


def kubernetes(project: Path) -> Iterator[Service]:
    import yaml

    if not shutil.which("kubectl"):
        unavailable("needs kubectl, for its kustomize")
    overlay = project / "deploy" / "kubernetes" / "overlays" / "production"
    for example in overlay.rglob("*.env.example"):
        shutil.copy(example, example.with_suffix(""))
    built = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    for resource in yaml.safe_load_all(built.stdout):
        if resource["kind"] in ("Deployment", "StatefulSet"):
            pod = resource["spec"]["template"]["spec"]
            container = pod["containers"][0]
            yield Service(
                resource["metadata"]["name"].removeprefix(f"{project.name}-"),
                (*container["command"], *container.get("args", ())),
                pod["terminationGracePeriodSeconds"],
                _metrics_port((variable["name"], variable.get("value", "")) for variable in container.get("env", ())),
            )


def _metrics_port(variables: Any) -> dict[str, str]:
    """Where the process is scraped: the only variable here that is not of the machine."""
    return {name: value for name, value in variables if name == "TASKKIT_METRICS_PORT"}


READERS = {"supervisor": supervisor, "systemd": systemd, "compose": compose, "kubernetes": kubernetes}
