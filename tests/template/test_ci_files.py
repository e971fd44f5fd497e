"""The files of GitHub Actions, Dependabot and GitLab CI, for every pair of answers, by those who know the formats."""

import re

import pytest
import yaml

from tests.template.conftest import tool
from tests.template.test_options import OPTIONS, VARIANTS

pytestmark = pytest.mark.template

LAYOUT = """
extends: default
rules:
  line-length: {max: 120}
  document-start: disable
  truthy: {check-keys: false}
  comments: {min-spaces-from-content: 1}
"""


def with_ci(bake, ci, name):
    """The file of that name in all projects with this CI; each of the answers that it depends on is among them."""
    rows = [row for row in VARIANTS if row["ci"] == ci]
    for option in ("database", "broker", "deployment"):
        assert {row[option] for row in rows} == set(OPTIONS[option])
    return [str(bake(**row).path / name) for row in rows]


@pytest.mark.parametrize(
    ("ci", "name", "schema"),
    [
        ("github", ".github/workflows/ci.yml", "vendor.github-workflows"),
        ("github", ".github/dependabot.yml", "vendor.dependabot"),
        ("gitlab", ".gitlab-ci.yml", "vendor.gitlab-ci"),
    ],
)
def test_they_are_what_their_readers_expect(bake, shop, tmp_path, ci, name, schema):
    files = with_ci(bake, ci, name)

    shop.execute(tool("check-jsonschema"), "--builtin-schema", schema, *files)
    shop.execute(tool("yamllint"), "--strict", "--config-data", LAYOUT, *files)


def test_zizmor_finds_nothing_that_an_attacker_could_use(bake, shop):
    files = with_ci(bake, "github", ".github")

    shop.execute(tool("zizmor"), "--offline", "--quiet", "--no-progress", *files)


def test_actions_are_pinned_to_a_commit_and_may_only_read(bake):
    for file in with_ci(bake, "github", ".github/workflows/ci.yml"):
        with open(file, encoding="utf-8") as opened:
            text = opened.read()
        workflow = yaml.safe_load(text)

        assert workflow["permissions"] == {}
        assert all(re.search(r"@[0-9a-f]{40} # v[\d.]+$", line) for line in text.splitlines() if "uses:" in line)
        for job in workflow["jobs"].values():
            assert job["permissions"] == {"contents": "read"}
            assert job["timeout-minutes"] <= 30
            checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
            assert [step["with"] for step in checkouts] == [{"persist-credentials": False}]


def steps(baked):
    """The commands of the job `test`."""
    if baked.answers["ci"] == "github":
        workflow = yaml.safe_load(baked.text(".github/workflows/ci.yml"))
        return workflow, [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    workflow = yaml.safe_load(baked.text(".gitlab-ci.yml"))
    return workflow, workflow["test"]["script"]


@pytest.mark.parametrize("ci", ["github", "gitlab"])
@pytest.mark.parametrize("deployment", OPTIONS["deployment"])
def test_they_say_no_more_than_the_makefile_knows(bake, ci, deployment):
    baked = bake(ci=ci, deployment=deployment, database="mariadb", broker="rabbitmq", results="redis")

    workflow, commands = steps(baked)

    assert commands == ["make install", "make lint", "make check", "make test", "make probe"]
    targets = set(re.findall(r"^([a-z-]+):", baked.text("Makefile"), re.MULTILINE))
    assert {command.removeprefix("make ") for command in commands} <= targets
    assert ("build" in workflow.get("jobs", workflow)) == (baked.path / "Dockerfile").is_file()


@pytest.mark.parametrize("ci", ["github", "gitlab"])
@pytest.mark.parametrize(
    ("answers", "images"),
    [
        ({}, []),
        ({"database": "postgresql", "broker": "redis"}, ["postgres", "redis"]),
        ({"database": "mariadb", "broker": "rabbitmq", "results": "redis"}, ["mariadb", "redis", "rabbitmq"]),
        ({"broker": "sqs"}, []),
    ],
)
def test_the_tests_have_the_servers_of_the_answers(bake, ci, answers, images):
    baked = bake(ci=ci, **answers)
    workflow, commands = steps(baked)

    job = workflow["jobs"]["test"] if ci == "github" else workflow["test"]
    services = job.get("services", {})
    used = [service["image"] for service in services.values()] if isinstance(services, dict) else services
    assert [image.partition(":")[0] for image in used] == images
    given = job["env"] if ci == "github" else job["variables"]
    of_the_server = {"POSTGRES_USER", "POSTGRES_PASSWORD", "MARIADB_DATABASE", "MARIADB_ROOT_PASSWORD", "PIP_CACHE_DIR"}
    assert given.keys() <= baked.variables | of_the_server
    assert ("make probe" in commands) == (answers.get("broker") != "sqs")


@pytest.mark.parametrize("ci", ["github", "gitlab"])
@pytest.mark.parametrize("answers", [{}, {"broker": "sqs", "database": "mariadb"}])
def test_what_they_say_in_the_environment_is_enough_for_the_settings(bake, servers, ci, answers):
    baked = bake(ci=ci, **answers)
    workflow, _ = steps(baked)
    given = workflow["jobs"]["test"]["env"] if ci == "github" else workflow["test"]["variables"]
    told = {name: value for name, value in given.items() if name in baked.variables}
    told |= {name: url for name, url in servers.environment(baked).items() if name in told or name == "VAR_DIR"}

    nobodys = baked.path.parent / "without-env"
    if not nobodys.exists():
        baked.copy(nobodys)
        (nobodys / ".env").unlink()
    said = type(baked)(nobodys, baked.answers).run("manage.py", "check", **told)

    assert "no issues" in said
