"""A rendered project's Kubernetes files, as kubectl makes them of its folders."""

import base64
import functools
import re
import shutil
import subprocess

import yaml

from tests.template.conftest import tool

#: What a secret is filled with, so that the settings can be loaded.
ADDRESSES = {
    "redis": "redis://127.0.0.1:1/0",
    "rabbitmq": "amqp://guest:guest@127.0.0.1:1//",
    "sqs": "sqs://",
    "postgresql": "postgresql://shop@127.0.0.1:1/shop",
    "mariadb": "mysql://shop@127.0.0.1:1/shop",
}

WORKLOADS = {"Deployment", "StatefulSet", "Job", "CronJob"}
CUSTOM = {"ScaledObject", "TriggerAuthentication", "PodMonitor"}


class Manifests(list):
    """What kubectl has rendered."""

    def of(self, *kinds):
        return [each for each in self if each["kind"] in kinds]

    def one(self, kind, name):
        (found,) = [
            each for each in self.of(kind) if re.fullmatch(f"{name}(-[a-z0-9]{{10}})?", each["metadata"]["name"])
        ]
        return found

    @property
    def workers(self):
        return {
            each["metadata"]["labels"]["lane"]: each
            for each in self.of(*WORKLOADS)
            if "lane" in each["metadata"]["labels"]
        }

    @property
    def config(self):
        return self.one("ConfigMap", "config")["data"]

    @property
    def secrets(self):
        data = self.one("Secret", "secrets")["data"]
        return {name: base64.b64decode(value).decode() for name, value in data.items()}


def pod(workload):
    spec = workload["spec"]
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    return spec["template"]


def containers(workload):
    spec = pod(workload)["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def app(workload):
    (found,) = [each for each in pod(workload)["spec"]["containers"] if each["name"] == "app"]
    return found


class Tree:
    """The files below deploy/kubernetes of one project, filled in as README.md says."""

    def __init__(self, baked, folder):
        self.baked = baked
        self.path = folder / "deploy"
        shutil.copytree(baked.path / "deploy" / "kubernetes", self.path)
        production = self.path / "overlays" / "production"
        self.fill_in(production / "settings")
        self.plain = self.render(production)
        self.release = self.render(production / "release")
        overlay = production / "kustomization.yaml"
        overlay.write_text(re.sub(r"(?m)^  # - ", "  - ", overlay.read_text()))
        self.full = self.render(production)

    def fill_in(self, settings):
        answers = self.baked.answers
        text = (settings / "secrets.env.example").read_text()
        values = {
            "SECRET_KEY": "x" * 50,
            "DATABASE_URL": ADDRESSES[answers["database"]],
            "BROKER_URL": ADDRESSES[answers["broker"]],
            "RESULT_URL": ADDRESSES["redis"],
            "FLOWER_BASIC_AUTH": "name:password",
            "TASKKIT_METRICS_TOKEN": "a token of many letters",
        }
        for name, value in values.items():
            text = re.sub(rf"(?m)^{name}=.*$", f"{name}={value}", text)
        (settings / "secrets.env").write_text(text)

    @staticmethod
    def render(folder):
        done = subprocess.run([tool("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return Manifests(each for each in yaml.safe_load_all(done.stdout) if each)

    @functools.cached_property
    def planned(self):
        """What django-taskkit would write for this project: a container for each lane, and its seconds to stop."""
        formats = ("--format", "k8s", "--no-beat", "--no-relay")
        written = self.baked.run("manage.py", "taskkit", "workers", *formats, **self.environment(self.path))
        pods = [each["spec"]["template"]["spec"] for each in yaml.safe_load_all(written) if each]
        return {
            one["name"].removeprefix("worker-"): (one, each["terminationGracePeriodSeconds"])
            for each in pods
            for one in each["containers"]
        }

    def environment(self, folder):
        """What a pod would have, its folders moved to a place that is there."""
        values = {**self.full.config, **self.full.secrets, "VAR_DIR": str(folder / "var"), "MEDIA_BUCKET": ""}
        return {**values, "TASKKIT_HEALTH_DIR": str(folder / "run" / "health"), "WORKER_CONCURRENCY": "1"}
