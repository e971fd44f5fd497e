"""What a generated project's runbook and its page on deployment tell people to type is there."""

import itertools
import os
import re
import shlex

import pytest

from django_taskkit.management.commands.taskkit import Command
from tests.template.kustomized import Tree, app, pod

yaml = pytest.importorskip("yaml")

pytestmark = pytest.mark.template

KUBERNETES = {"database": "postgresql", "broker": "redis", "observability": "prometheus", "flower": "yes"}
CASES = {
    "compose": {"deployment": "compose"},
    "compose-with-all": {"deployment": "compose", "flower": "yes", "observability": "prometheus", "broker": "redis"},
    "systemd": {
        "deployment": "systemd",
        "project": "web_shop",
        "broker": "redis",
        "flower": "yes",
        "observability": "prometheus",
    },
    "supervisor": {"deployment": "supervisor", "broker": "rabbitmq", "flower": "yes"},
    "kubernetes": {"deployment": "kubernetes", **KUBERNETES},
    "kubernetes-odd-name": {
        "deployment": "kubernetes",
        "project": "web_shop_",
        **KUBERNETES,
        "broker": "sqs",
        "flower": "no",
    },
}
LANES = {"customers", "reports", "geocoding", "default"}
#: What a command makes, or what Celery and Kubernetes make meanwhile, and so is in no file.
MADE = {("job", "backup-now"), ("job", "restore")}


def commands(text):
    """Lines of code blocks and what stands between backticks, as words; a command on two lines is one."""
    text = re.sub(r"\\\n\s*", "", text)
    blocks = re.findall(r"(?ms)^```\w*\n(.*?)^```", text)
    text = re.sub(r"(?ms)^```.*?^```", "", text)
    found = [line for block in blocks for line in block.splitlines()]
    found += re.findall(r"(?m)^    (\S.*)", text) + re.findall(r"`([^`\n]+)`", text)
    for line in found:
        line = re.split(r"\s#|\s\|", line.removeprefix("$ "))[0]
        try:
            yield shlex.split(line)
        except ValueError:  # a quote that ends lines below
            yield line.split()


def expanded(word):
    """What bash makes of braces."""
    before, brace, rest = word.partition("{")
    inside, _, after = rest.partition("}")
    return [f"{before}{each}{after}" for each in inside.split(",")] if brace else [word]


class Project:
    """What a generated project says, and what it has."""

    def __init__(self, baked, tmp_path):
        self.baked = baked
        self.deployment = baked.answers["deployment"]
        self.pages = ["docs/runbook.md", "docs/deployment.md", f"deploy/{self.deployment}/README.md"]
        self.commands = [words for page in self.pages for words in commands(baked.text(page)) if words]
        self.tree = Tree(baked, tmp_path) if self.deployment == "kubernetes" else None

    def after(self, *beginning):
        """The words that follow, of each command that has these words."""
        size = len(beginning)
        for words in self.commands:
            for place in range(len(words) - size + 1):
                if tuple(words[place : place + size]) == beginning:
                    yield words[place + size :]
                    break


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def project(request, bake, tmp_path_factory):
    return Project(bake(**request.param), tmp_path_factory.mktemp("tree"))


def on(deployment):
    """A test of projects that are deployed so."""
    chosen = {name: answers for name, answers in CASES.items() if answers["deployment"] == deployment}
    return pytest.mark.parametrize("project", chosen.values(), ids=chosen, indirect=True, scope="module")


# --- What runs it -----------------------------------------------------------------------------------------


@on("compose")
def test_services_of_compose_are_there(project):
    known = set(yaml.safe_load(project.baked.text("compose.yaml"))["services"])
    named = []
    for verb, *words in project.after("docker", "compose"):
        named += [word.partition("=")[0] for before, word in itertools.pairwise(words) if before == "--scale"]
        plain = [word for word in words if re.fullmatch("[a-z][a-z0-9-]*", word)]
        named += plain[:1] if verb in ("exec", "run") else plain
    assert named
    assert set(named) <= known


@on("compose")
def test_compose_stops_all_that_writes_before_a_restore(project):
    """Twice: the runbook says it, and the README of the deployment."""
    said = [set(words) for words in project.after("docker", "compose", "stop")]
    everything = {"web", "beat", "relay", *(f"worker-{lane}" for lane in LANES)}
    assert len([words for words in said if everything <= words]) == 2


@on("systemd")
def test_units_are_there(project):
    folder = project.baked.path / "deploy" / "systemd"
    units = {path.name for path in folder.iterdir()}
    named = {word for _, *words in project.after("systemctl") for word in words if not word.startswith("-")}
    assert named
    for unit in named:
        unit = unit if unit.endswith((".service", ".target", ".timer")) else f"{unit}.service"
        template, at, instance = unit.partition("@")
        if "*" in unit:
            assert list(folder.glob(unit)), unit
        elif at:
            assert instance.partition(".")[0] in LANES, unit
            assert f"{template}@.{instance.partition('.')[2]}" in units, unit
        else:
            assert unit in units


@on("supervisor")
def test_programs_of_supervisor_are_there(project):
    conf = project.baked.text(f"deploy/supervisor/{project.baked.answers['project']}.conf")
    known = set(re.findall(r"(?m)^\[program:(\S+)\]", conf))
    for verb in ("start", "stop", "restart"):
        named = {name for words in project.after("supervisorctl", verb) for word in words for name in expanded(word)}
        assert named, verb
        assert named <= known, verb


@on("supervisor")
def test_supervisor_stops_all_that_writes_before_a_restore(project):
    """Twice: the runbook says it, and the README of the deployment."""
    name = project.baked.answers["project"]
    said = [{one for word in words for one in expanded(word)} for words in project.after("supervisorctl", "stop")]
    everything = {f"{name}-{each}" for each in ("web", "beat", "relay", *(f"worker-{lane}" for lane in LANES))}
    assert said.count(everything) == 2


# --- Kubernetes -------------------------------------------------------------------------------------------


@on("kubernetes")
def test_what_kubectl_is_told_to_change_is_in_the_namespace(project):
    tree = project.tree
    known = {(each["kind"].lower(), each["metadata"]["name"]) for each in [*tree.full, *tree.release]} | MADE
    kinds = {kind for kind, _ in known}
    (namespace,) = {each["metadata"]["name"] for each in tree.full.of("Namespace")}
    named = set()
    for words in project.after("kubectl"):
        if "-k" in words:
            folder = words[words.index("-k") + 1]
            assert folder == "…" or (project.baked.path / folder / "kustomization.yaml").is_file(), folder
        elif words and words[0] not in ("drain", "delete", "patch", "apply"):
            assert words[:2] == ["-n", namespace], words
        for before, word in zip(["", *words], words, strict=False):
            kind, slash, name = word.rpartition("=")[2].partition("/")
            if slash and kind in kinds:
                named.add((kind, name))
            elif before in kinds and not word.startswith("-"):
                named.add((before, word))
    assert ("deployment", "web") in named
    assert ("statefulset", "worker-reports") in named
    assert ("scaledobject", "worker-reports") in named
    assert {each for each in named if each[0] not in ("pod", "configmap")} <= known


@on("kubernetes")
def test_before_a_restore_everything_that_writes_has_ended(project):
    tree = project.tree
    (waits,) = [words for words in project.after("kubectl") if "--for=delete" in words]
    (names,) = re.findall(r"^app.kubernetes.io/component in \((.+)\)$", waits[waits.index("--selector") + 1])
    meant = set(names.split(", "))
    workloads = tree.full.of("Deployment", "StatefulSet")
    components = {pod(each)["metadata"]["labels"]["app.kubernetes.io/component"] for each in workloads}
    assert meant == components - {"flower", "exporter"}
    (seconds,) = re.findall(r"--timeout=(\d+)s", " ".join(waits))
    assert int(seconds) > max(pod(each)["spec"]["terminationGracePeriodSeconds"] for each in workloads)
    jobs = pod(tree.full.one("CronJob", "backup"))["metadata"]["labels"]["app.kubernetes.io/component"]
    assert jobs not in meant  # its pods stay there when they are done, and nobody waits for that
    assert app(tree.full.one("CronJob", "backup"))["args"][0] == "ops/backup.sh"
    assert ["-n", waits[1], "delete", "job", "restore"] in list(project.after("kubectl"))


# --- Everywhere -------------------------------------------------------------------------------------------


def test_files_are_there_and_scripts_can_be_run(project):
    for page in project.pages:
        text = re.sub(r"https?://\S+", "", project.baked.text(page))
        for name in re.findall(r"(?<![\w./-])((?:config|deploy|docs|ops|orders|tests)/[\w./-]*\w)", text):
            assert (project.baked.path / name).exists(), (page, name)
    called = {
        word.removeprefix(f"/srv/{project.baked.answers['project']}/")
        for words in project.commands
        for word in words
        if re.fullmatch(r"(/srv/\w+/)?(deploy|ops)/\S+\.sh", word)
    }
    for name in called:
        assert os.access(project.baked.path / name, os.X_OK), name


def test_verbs_and_options_are_those_of_the_command(project):
    parser = Command().create_parser("manage.py", "taskkit")
    (verbs,) = [action.choices for action in parser._actions if action.dest == "verb"]
    said = [words for words in project.after("taskkit") if words and words[0] != "LANE"]
    assert {"doctor", "list", "routes", "redrive", "worker"} <= {verb for verb, *_ in said}
    for verb, *words in said:
        assert verb in verbs, verb
        if "&&" in words:
            words = words[: words.index("&&")]
        parser.parse_args([verb, *(re.sub("^ID$", "1", word) for word in words)])  # exits if it takes them not


def test_manage_is_run_with_the_variables_of_the_services(project):
    text = project.baked.text("docs/runbook.md")
    manage = re.search(r"`manage\.py` stands for\n\n    (.+)\n", text)[1]
    name = project.baked.answers["project"]
    namespace = name.replace("_", "-").strip("-")
    assert (
        manage
        == {
            "compose": "docker compose exec web python manage.py",
            "systemd": "sudo deploy/systemd/manage.sh",
            "supervisor": f"sudo -u {name} .venv/bin/python manage.py",
            "kubernetes": f"kubectl -n {namespace} exec -it deployment/web -- python manage.py",
        }[project.deployment]
    )
