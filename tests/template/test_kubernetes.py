"""The Kustomize tree of a generated project: what kubectl makes of it, and what its pods start, started here."""

import re
import subprocess

import pytest

from tests.template.conftest import tool
from tests.template.kustomized import CUSTOM, WORKLOADS, Tree, app, containers, pod
from tests.template.pairs import all_pairs, partly

yaml = pytest.importorskip("yaml")

pytestmark = pytest.mark.template

IMPOSSIBLE = [{"broker": "sqs", "flower": "yes"}]
CASES = all_pairs(
    {
        "broker": ["redis", "rabbitmq", "sqs"],
        "observability": ["none", "prometheus", "sentry", "opentelemetry"],
        "flower": ["no", "yes"],
        "database": ["postgresql", "mariadb"],
        "results": ["database", "redis"],
        "project": ["shop", "web_shop_"],
    },
    IMPOSSIBLE,
)

#: Variables that the project doesn't read: for KEDA, ops/backup.sh, django-taskkit, and Kubernetes itself.
OTHERS = {"REDIS_ADDRESS", "REDIS_PASSWORD", "KEEP", "TASKKIT_METRICS_PORT", "POD_IP", "POD_HOSTS"}
#: What the image says.
IN_THE_IMAGE = {"DJANGO_SETTINGS_MODULE", "RELEASE"}


@pytest.fixture(scope="module")
def trees(bake, tmp_path_factory):
    made = {}

    def tree(**answers):
        key = tuple(sorted(answers.items()))
        if key not in made:
            made[key] = Tree(bake(deployment="kubernetes", **answers), tmp_path_factory.mktemp("tree"))
        return made[key]

    return tree


@pytest.fixture(params=partly(CASES, 2, lambda case: "-".join(case.values())))
def tree(request, trees):
    return trees(**request.param)


@pytest.fixture
def planned(tree):
    return tree.planned


def queue_of(probe):
    words = " ".join(probe["exec"]["command"])
    return re.search(r"--queue[ =](\S+)", words)[1]


# --- What kubectl makes of it -----------------------------------------------------------------------------


def test_kubernetes_knows_every_field(tree, tmp_path):
    files = {"all": tree.full, "release": tree.release}
    for name, manifests in files.items():
        known = [each for each in manifests if each["kind"] not in CUSTOM]
        (tmp_path / name).write_text(yaml.safe_dump_all(known))
    done = subprocess.run(
        [tool("kubernetes-validate"), "--strict", "--quiet", *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_files_are_tidy(tree):
    rules = (
        "{extends: default, rules: {document-start: disable, line-length: {max: 120},"
        " braces: {max-spaces-inside: 0}, comments: {min-spaces-from-content: 1}}}"
    )
    done = subprocess.run(
        [tool("yamllint"), "--strict", "-d", rules, str(tree.baked.path / "deploy" / "kubernetes")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


def test_nothing_is_left_to_fill_in_but_names_of_your_own(tree):
    for manifests in (tree.plain, tree.full, tree.release):
        assert "filled-in" not in yaml.safe_dump_all(manifests)


def test_everything_is_in_one_namespace(tree):
    project = tree.baked.answers["project"].replace("_", "-").strip("-")
    assert (
        tree.full.one("Namespace", project)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    )
    for each in [*tree.full, *tree.release]:
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == project, each["metadata"]["name"]


def test_no_name_is_used_twice(tree):
    names = [(each["kind"], each["metadata"]["name"]) for each in tree.full]
    assert len(names) == len(set(names))


# --- Lanes ------------------------------------------------------------------------------------------------


def test_each_lane_has_a_worker(tree, planned):
    assert set(tree.plain.workers) == set(planned)
    for lane, worker in tree.plain.workers.items():
        assert app(worker)["command"] + app(worker)["args"] == ["python", "manage.py", "taskkit", "worker", lane]


def test_a_worker_may_take_as_long_as_its_longest_task(tree, planned):
    for lane, worker in tree.plain.workers.items():
        _, least = planned[lane]
        assert pod(worker)["spec"]["terminationGracePeriodSeconds"] >= least, lane


def test_a_probe_asks_for_the_queue_of_its_lane(tree, planned):
    for lane, worker in tree.plain.workers.items():
        assert queue_of(app(worker)["readinessProbe"]) == queue_of(planned[lane][0]["readinessProbe"])


def test_only_a_worker_that_hangs_is_restarted(tree):
    for worker in tree.plain.workers.values():
        probe = app(worker)["livenessProbe"]
        assert probe["exec"]["command"][-1] == "--alive"
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 300


def test_a_worker_has_the_memory_that_its_processes_may_use(tree):
    for lane, worker in tree.plain.workers.items():
        processes = 2 if lane in ("customers", "default") else 1
        limit = app(worker)["resources"]["limits"]["memory"]
        assert int(limit.removesuffix("Mi")) >= processes * 400 + 200, lane


def test_what_a_worker_keeps_for_the_database_outlives_its_pod(tree):
    for workload in (*tree.plain.workers.values(), tree.plain.one("StatefulSet", "relay")):
        assert workload["spec"]["persistentVolumeClaimRetentionPolicy"] == {
            "whenDeleted": "Retain",
            "whenScaled": "Retain",
        }
        (claim,) = workload["spec"]["volumeClaimTemplates"]
        (mount,) = [each for each in app(workload)["volumeMounts"] if each["name"] == claim["metadata"]["name"]]
        assert {"name": "VAR_DIR", "value": mount["mountPath"]} in app(workload)["env"]
        assert mount["name"] not in {volume["name"] for volume in pod(workload)["spec"]["volumes"]}


def test_there_is_one_worker_for_geocoding_and_one_beat(tree):
    for manifests in (tree.plain, tree.full):
        assert manifests.workers["geocoding"]["kind"] == "StatefulSet"  # never two of a number
        assert manifests.workers["geocoding"]["spec"]["replicas"] == 1
        beat = manifests.one("Deployment", "beat")["spec"]
        assert (beat["replicas"], beat["strategy"]) == (1, {"type": "Recreate"})


# --- Pods -------------------------------------------------------------------------------------------------


def test_no_pod_may_do_more_than_it_needs(tree):
    for workload in [*tree.full.of(*WORKLOADS), *tree.release.of(*WORKLOADS)]:
        spec = pod(workload)["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(workload):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, container["name"]


def test_every_container_says_what_it_needs(tree):
    for workload in [*tree.full.of(*WORKLOADS), *tree.release.of(*WORKLOADS)]:
        for container in containers(workload):
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert set(container["resources"]["limits"]) == {"memory"}


def test_every_image_has_a_version(tree):
    for workload in [*tree.full.of(*WORKLOADS), *tree.release.of(*WORKLOADS)]:
        for container in containers(workload):
            name, colon, version = container["image"].rpartition(":")
            assert colon, container["image"]
            assert "/" in name, container["image"]
            assert version not in ("", "latest"), container["image"]


def test_no_shell_stands_between_kubernetes_and_what_it_stops(tree):
    for workload in tree.full.of("Deployment", "StatefulSet"):
        assert app(workload)["command"][0] == "python"


def test_the_image_of_backups_holds_what_they_need(tree):
    dockerfile = tree.path / "backup" / "Dockerfile"
    done = subprocess.run([tool("hadolint"), str(dockerfile)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    (copied,) = re.findall(r"(?m)^COPY (?:--\S+ )*(.+) ops/$", dockerfile.read_text())
    (job,) = containers(tree.plain.one("CronJob", "backup"))
    assert job["args"][0] in copied.split()
    for name in copied.split():
        assert (tree.baked.path / name).is_file(), name
        assert f"!{name}" in tree.baked.text("deploy/kubernetes/backup/Dockerfile.dockerignore").split()


def test_every_process_is_probed(tree):
    for workload in tree.full.of("Deployment", "StatefulSet"):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert app(workload)[probe]["failureThreshold" if probe != "readinessProbe" else "periodSeconds"]


def test_new_pods_wait_for_the_migrations_and_the_release_applies_them(tree):
    for workload in tree.full.of("Deployment", "StatefulSet"):
        (waits,) = [each for each in containers(workload) if each["name"] == "migrations"]
        assert waits["command"] == ["python", "manage.py", "migrate", "--check"]
    job = tree.release.one("Job", "release")
    assert [each["command"] for each in containers(job)] == [
        ["python", "manage.py", "migrate", "--noinput"],
        ["python", "manage.py", "createcachetable"],
    ]


def test_the_release_has_the_settings_and_the_image_of_the_rest(tree):
    def used(workload):
        return [(each["image"], each["envFrom"]) for each in containers(workload) if each["name"] == "app"]

    assert used(tree.release.one("Job", "release")) == used(tree.plain.one("Deployment", "web"))


def test_the_web_is_taken_out_of_its_service_before_it_stops(tree):
    web = tree.plain.one("Deployment", "web")
    sleeps = app(web)["lifecycle"]["preStop"]["sleep"]["seconds"]
    graceful = int(re.search(r"(?m)^graceful_timeout = (\d+)", tree.baked.text("gunicorn.conf.py"))[1])
    assert pod(web)["spec"]["terminationGracePeriodSeconds"] > sleeps + graceful
    assert web["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_probes_of_the_web_give_a_name_that_it_answers_to(tree):
    web = app(tree.plain.one("Deployment", "web"))
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        (header,) = web[probe]["httpGet"]["httpHeaders"]
        assert header == {"name": "Host", "value": tree.plain.config["ALLOWED_HOSTS"]}
    assert tree.plain.one("Ingress", "web")["spec"]["rules"][0]["host"] == header["value"]


# --- Settings and secrets ---------------------------------------------------------------------------------


def test_every_variable_is_one_of_the_project(tree):
    for manifests in (tree.full, tree.release):
        given = {*manifests.config, *manifests.secrets}
        for workload in manifests.of(*WORKLOADS):
            given |= {each["name"] for container in containers(workload) for each in container.get("env", [])}
        assert given - OTHERS <= tree.baked.variables


def test_no_variable_is_forgotten(tree):
    spoken_of = {*tree.full.config, *tree.full.secrets, "VAR_DIR", "TASKKIT_HEALTH_DIR"}
    of_servers = {name for name in tree.baked.variables if re.match("(POSTGRES|MARIADB|REDIS|RABBITMQ)_", name)}
    assert tree.baked.variables - IN_THE_IMAGE - of_servers - spoken_of == set()


def test_no_secret_is_where_everybody_may_read(tree):
    assert not set(tree.full.config) & set(tree.full.secrets)
    for name, value in tree.full.config.items():
        assert not re.search(r"PASSWORD|SECRET|TOKEN|DSN|_AUTH$|KEY", name), name
        assert "@" not in value or "//" not in value, name


def test_git_and_the_image_never_get_the_secrets(tree, tmp_path):
    assert "secrets.env" in tree.baked.text("deploy/kubernetes/.gitignore").split()
    assert not list(tree.baked.path.rglob("secrets.env"))
    assert "deploy" in tree.baked.text(".dockerignore").split()


def test_a_changed_setting_makes_new_pods(tree):
    for workload in tree.full.of("Deployment", "StatefulSet"):
        config, secrets = (next(iter(each.values()))["name"] for each in app(workload)["envFrom"])
        assert config == tree.full.one("ConfigMap", "config")["metadata"]["name"]
        assert secrets == tree.full.one("Secret", "secrets")["metadata"]["name"]
        assert re.fullmatch(r"config-[a-z0-9]{10}", config)


# --- Who belongs to whom ----------------------------------------------------------------------------------


def is_selected(labels, selector):
    return selector.items() <= labels.items()


def test_no_pod_has_two_owners(tree):
    workloads = tree.full.of("Deployment", "StatefulSet")
    for workload in workloads:
        selector = workload["spec"]["selector"]["matchLabels"]
        owned = [each for each in workloads if is_selected(pod(each)["metadata"]["labels"], selector)]
        assert owned == [workload]
        for spread in pod(workload)["spec"].get("topologySpreadConstraints", []):
            assert spread["labelSelector"]["matchLabels"] == selector


def test_services_and_budgets_mean_the_pods_of_their_name(tree):
    workloads = {each["metadata"]["name"]: each for each in tree.full.of("Deployment", "StatefulSet")}
    for each in tree.full.of("Service", "PodDisruptionBudget"):
        selector = each["spec"]["selector"].get("matchLabels", each["spec"]["selector"])
        selected = [name for name, one in workloads.items() if is_selected(pod(one)["metadata"]["labels"], selector)]
        assert selected == [each["metadata"]["name"]]


def test_only_the_ingress_reaches_the_web_and_only_prometheus_the_numbers(tree):
    ports = {
        each["metadata"]["name"]: {port["name"] for port in app(each).get("ports", [])}
        for each in tree.full.of("Deployment", "StatefulSet")
    }
    reached = {}
    for policy in tree.full.of("NetworkPolicy"):
        selector = policy["spec"]["podSelector"].get("matchLabels", {})
        for rule in policy["spec"].get("ingress", []):
            (source,) = rule["from"]
            (namespace,) = source["namespaceSelector"]["matchLabels"].values()
            for workload in tree.full.of("Deployment", "StatefulSet"):
                name = workload["metadata"]["name"]
                if is_selected(pod(workload)["metadata"]["labels"], selector):
                    for port in ports[name] & {each["port"] for each in rule["ports"]}:
                        reached.setdefault(namespace, set()).add((name, port))
    assert tree.full.one("NetworkPolicy", "nobody")["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    answers = tree.baked.answers
    expected = {"traefik": {("web", "http")}}
    if answers["flower"] == "yes":
        expected["traefik"].add(("flower", "http"))
    if answers["observability"] == "prometheus":
        counted = {"beat", "relay", "exporter", *(each["metadata"]["name"] for each in tree.full.workers.values())}
        expected["monitoring"] = {*((name, "metrics") for name in counted), ("web", "http")}
    assert reached == expected


def test_prometheus_is_told_where_the_numbers_are(trees):
    tree = trees(**next(case for case in CASES if case["observability"] == "prometheus"))
    asked = set()
    for monitor in tree.full.of("PodMonitor"):
        assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        for workload in tree.full.of("Deployment", "StatefulSet"):
            names = {port["name"] for port in app(workload).get("ports", [])}
            if is_selected(pod(workload)["metadata"]["labels"], monitor["spec"]["selector"]["matchLabels"]):
                asked |= {workload["metadata"]["name"]} if endpoint["port"] in names else set()
    assert asked == {each["metadata"]["name"] for each in tree.full.of("Deployment", "StatefulSet")} - {"flower"}
    secret = tree.full.one("PodMonitor", "web")["spec"]["podMetricsEndpoints"][0]["authorization"]["credentials"]
    assert secret["name"] == tree.full.one("Secret", "secrets")["metadata"]["name"]
    assert secret["key"] in tree.full.secrets


def leads_to(ingress, path):
    """Whether the path gets through, as Kubernetes defines the two types."""
    for each in ingress["spec"]["rules"][0]["http"]["paths"]:
        prefix = each["path"].rstrip("/") + "/"
        if path == each["path"] or (each["pathType"] == "Prefix" and f"{path}/".startswith(prefix)):
            return True
    return False


def test_flower_shows_its_pages_and_not_what_has_no_password(trees):
    urls = pytest.importorskip("flower.urls")
    tree = trees(**next(case for case in CASES if case["flower"] == "yes"))
    ingress = tree.full.one("Ingress", "flower")
    patterns = [each.regex.pattern if hasattr(each, "regex") else each[0] for each in urls.handlers]
    paths = {re.sub(r"\(.*|/\?|\$$", "", pattern) for pattern in patterns} - {".*"}
    closed = {path for path in paths if not leads_to(ingress, path)}
    assert closed == {"/metrics", "/healthcheck", "/login", "/logout"}  # the last two are for OAuth
    assert not leads_to(ingress, "/metrics/")


# --- KEDA -------------------------------------------------------------------------------------------------


def test_keda_counts_the_queues_of_the_settings(tree, planned):
    key = {"redis": "listName", "rabbitmq": "queueName", "sqs": "queueURL"}[tree.baked.answers["broker"]]
    scaled = {each["metadata"]["name"].removeprefix("worker-"): each for each in tree.full.of("ScaledObject")}
    assert set(scaled) == set(planned) - {"geocoding"}
    for lane, each in scaled.items():
        (trigger,) = each["spec"]["triggers"]
        assert trigger["metadata"][key] == queue_of(planned[lane][0]["readinessProbe"])


def test_keda_scales_what_is_there_and_nobody_else_does(tree):
    for each in tree.full.of("ScaledObject"):
        target = each["spec"]["scaleTargetRef"]
        worker = tree.full.one(target["kind"], target["name"])
        assert target["apiVersion"] == worker["apiVersion"]
        assert "replicas" not in worker["spec"]
        assert "replicas" in tree.plain.one(target["kind"], target["name"])["spec"]


def test_keda_takes_a_worker_away_later_than_its_longest_task(tree):
    for each in tree.full.of("ScaledObject"):
        spec = each["spec"]
        worker = tree.full.one("StatefulSet", spec["scaleTargetRef"]["name"])
        longest = pod(worker)["spec"]["terminationGracePeriodSeconds"]
        window = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"][
            "stabilizationWindowSeconds"
        ]
        assert spec["minReplicaCount"] == 1
        assert longest < spec["cooldownPeriod"]
        assert longest < window <= 3600  # more is refused by Kubernetes


#: By trigger: what KEDA 2 documents (keda.sh, Scalers), and what of it is needed.
TRIGGERS = {
    "redis": ({"addressFromEnv", "databaseIndex", "enableTLS", "listName", "listLength"}, {"password"}),
    "rabbitmq": ({"mode", "queueName", "value"}, {"host"}),
    "aws-sqs-queue": ({"queueURL", "awsRegion", "queueLength"}, {"awsAccessKeyID", "awsSecretAccessKey"}),
}


def test_keda_gets_what_its_documentation_asks_for(tree):
    (authentication,) = tree.full.of("TriggerAuthentication")
    given = authentication["spec"]["secretTargetRef"]
    for each in tree.full.of("ScaledObject"):
        assert each["apiVersion"] == authentication["apiVersion"] == "keda.sh/v1alpha1"
        assert set(each["spec"]) == {
            "scaleTargetRef",
            "pollingInterval",
            "minReplicaCount",
            "maxReplicaCount",
            "cooldownPeriod",
            "advanced",
            "triggers",
        }
        (trigger,) = each["spec"]["triggers"]
        metadata, parameters = TRIGGERS[trigger["type"]]
        assert set(trigger["metadata"]) == metadata
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        assert {each["parameter"] for each in given} == parameters
        assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
        assert trigger["metadata"].get("addressFromEnv", "REDIS_ADDRESS") in {"REDIS_ADDRESS", *tree.full.config}
        region = tree.full.config["AWS_REGION"] if trigger["type"] == "aws-sqs-queue" else None
        assert trigger["metadata"].get("awsRegion") == region
    for each in given:
        assert each["name"] == tree.full.one("Secret", "secrets")["metadata"]["name"]
        assert each["key"] in tree.full.secrets
