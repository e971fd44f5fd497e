"""The files of the deployment hold what the settings promise: a worker for each lane, and time to stop in."""

import ast
{%- if cookiecutter.broker in ("redis", "sqs") %}
import os
{%- endif %}
import re
{%- if cookiecutter.broker in ("redis", "sqs") %}
import subprocess
import sys
{%- endif %}
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django_taskkit.routing.processes import BEAT_STOP_GRACE, RELAY_STOP_GRACE
from django_taskkit.routing.workers import WorkerPlan, worker_plans

from config.celery import app
from tests import deployment_files
from tests.deployment_files import ROOT, Process, processes

#: What a deployment says to libraries and to nobody else.
OF_THE_DEPLOYMENT = {"TASKKIT_METRICS_PORT"}


@pytest.fixture(scope="module")
def plans() -> dict[str, WorkerPlan]:
    """By lane; what `manage.py taskkit workers` prints."""
    app.loader.import_default_modules()  # tasks with a time limit of their own make a stop longer
    return {lane: plan for plan in worker_plans(app) for lane in plan.lanes}


def workers() -> dict[str, list[Process]]:
    found: dict[str, list[Process]] = {}
    for process in processes():
        if process.lane:
            found.setdefault(process.lane, []).append(process)
    return found


def only(words: str) -> Process:
    """The one process whose command has these words."""
    found = [process for process in processes() if words in process.command]
    assert len(found) == 1, f"'{words}' is in {len(found)} processes of the deployment; it belongs in one"
    return found[0]


def none_of(faults: Iterable[str]) -> None:
    found = list(faults)
    assert not found, "\n" + "\n".join(found)


# --- Lanes ----------------------------------------------------------------------------------------------------


def test_every_lane_has_a_worker(plans):
    [example, *_] = next(iter(workers().values()))
    none_of(
        f"The lane {lane!r} has no worker: nobody would do its tasks. Beside {example.name} in {example.file}, add one "
        f"that runs `manage.py taskkit worker {lane}`, with {example.with_grace(plan.stop_grace)}."
        for lane, plan in plans.items()
        if lane not in workers()
    )


def test_no_worker_is_of_a_lane_that_is_not_there(plans):
    none_of(
        f"{process.file}: {process.name} is the worker of a lane {lane!r}, which config/settings/tasks.py doesn't have "
        f"(it has {', '.join(plans)}). Take it out, or write the right name."
        for lane, found in workers().items()
        for process in found
        if lane not in plans
    )
{%- if cookiecutter.deployment == "systemd" %}


def test_a_release_restarts_the_worker_of_every_lane(plans):
    script = (ROOT / "deploy" / "systemd" / "deploy.sh").read_text(encoding="utf-8")
    [restarted] = re.findall(r"^for lane in (.+); do$", script, re.MULTILINE)
    assert set(restarted.split()) == plans.keys(), "deploy/systemd/deploy.sh restarts other lanes than there are"
{%- elif cookiecutter.deployment == "supervisor" %}


def test_a_release_restarts_every_program():
    script = (ROOT / "deploy" / "supervisor" / "deploy.sh").read_text(encoding="utf-8")
    [restarted] = re.findall(r"^programs=\((.+)\)$", script, re.MULTILINE)
    names = {f"{{ cookiecutter.project }}-{name}" for name in restarted.split()}
    assert names == {process.name for process in processes()}, "deploy/supervisor/deploy.sh restarts other programs"
{%- endif %}


def test_the_procfile_has_a_worker_for_every_lane(plans):
    procfile = (ROOT / "Procfile").read_text(encoding="utf-8")
    assert sorted(re.findall(r"manage\.py taskkit worker (\S+)$", procfile, re.MULTILINE)) == sorted(plans)


def test_one_process_alone_asks_for_places(plans):
    assert plans["geocoding"].concurrency == 1, "config/settings/tasks.py: geocoding needs concurrency=1"
    assert [process.copies for process in workers()["geocoding"]] == [1], (
        "The worker of the lane geocoding must be one: each would keep to the rate limit by itself."
    )
{%- if cookiecutter.deployment == "kubernetes" %}
    assert "worker-geocoding" not in deployment_files.scaled()
{%- endif %}


def test_there_is_one_beat():
    assert only("celery -A config beat").copies == 1


# --- Stopping -------------------------------------------------------------------------------------------------


def test_a_worker_may_take_as_long_to_stop_as_its_longest_task(plans):
    none_of(
        f"{process.file}: {process.name} is killed {process.grace:g} seconds after TERM, and a task of its lane may "
        f"run for longer. Write {process.with_grace(plan.stop_grace)}. ({'; '.join(plan.why)})"
        for lane, plan in plans.items()
        for process in workers().get(lane, [])
        if process.grace < plan.stop_grace
    )


def test_a_cold_stop_ends_before_the_worker_is_killed():
    soft = settings.CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT
    none_of(
        f"{process.file}: {process.name} is killed {process.grace:g} seconds after TERM; that is no longer than "
        f"CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT ({soft:g}) and the 5 that a stop takes besides."
        for found in workers().values()
        for process in found
        if process.grace < soft + 5
    )


def test_a_task_hears_of_its_limit_before_it_is_killed():
    assert settings.CELERY_TASK_SOFT_TIME_LIMIT < settings.CELERY_TASK_TIME_LIMIT
    for name, lane in settings.TASKKIT_LANES.items():
        if "time_limit" in lane:
            assert lane["soft_time_limit"] < lane["time_limit"], name


def test_requests_end_before_the_web_is_killed():
    gunicorn = ast.parse((ROOT / "gunicorn.conf.py").read_text(encoding="utf-8"))
    [graceful] = [
        ast.literal_eval(statement.value)
        for statement in gunicorn.body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "graceful_timeout"
    ]
    web = only("gunicorn.conf.py")
    assert web.grace >= graceful + 5, f"{web.file}: {web.name} needs {web.with_grace(graceful + 10)}"


@pytest.mark.parametrize(
    ("words", "needed"), [("celery -A config beat", BEAT_STOP_GRACE), ("manage.py taskkit relay", RELAY_STOP_GRACE)]
)
def test_beat_and_relay_can_write_down_where_they_are(words, needed):
    process = only(words)
    assert process.grace >= needed, f"{process.file}: {process.name} needs {process.with_grace(needed)}"
{%- if cookiecutter.broker in ("redis", "sqs") %}


def test_a_message_is_not_given_to_a_second_worker_while_the_first_is_at_it():
    # In a process of its own, as the settings of the tests have another broker.
    ask = (
        "import django; django.setup(); from config.celery import app; app.loader.import_default_modules();"
        "limits = [app.conf.task_time_limit, *(task.time_limit or 0 for task in app.tasks.values())];"
        "from django.conf import settings;"
        "limits += [lane.get('time_limit') or 0 for lane in settings.TASKKIT_LANES.values()];"
        "print(max(limits), app.conf.broker_transport_options['visibility_timeout'])"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings.development",
{%- if cookiecutter.broker == "redis" %}
        "BROKER_URL": "redis://127.0.0.1:1",
{%- else %}
        "BROKER_URL": "sqs://",
        "AWS_REGION": "eu-central-1",
{%- endif %}
{%- if cookiecutter.results == "redis" %}
        "RESULT_URL": "redis://127.0.0.1:1",
{%- endif %}
    }
    said = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    longest, visibility = map(float, said.stdout.split())
    assert longest < visibility, (
        f"A task may run for {longest:g} seconds, and its message is visible again after {visibility:g}: two do it."
    )
{%- endif %}


# --- Variables ------------------------------------------------------------------------------------------------


def example() -> set[str]:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    return {line.partition("=")[0] for line in lines if "=" in line and not line.startswith("#")}


def read_variables(file: Path) -> Iterator[str]:
    """The names that code asks an Environment for."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            names = node.args if node.func.attr == "hand_on" else node.args[:1]
            if node.func.attr in ("text", "required", "yes", "number", "names", "hand_on"):
                yield from (name.value for name in names if isinstance(name, ast.Constant))


def test_every_variable_that_is_read_is_in_the_example_and_the_other_way_round():
    files = [*(ROOT / "config").rglob("*.py"), *ROOT.glob("*.py")]
    read = {name: file.relative_to(ROOT) for file in files for name in read_variables(file)}
    compose = "".join(file.read_text(encoding="utf-8") for file in ROOT.glob("compose*.yaml"))

    asked_for = read.keys() | set(re.findall(r"\$\{(\w+)", compose))

    none_of(
        f"{read[name]} reads {name}, which .env.example doesn't have; add the line `{name}=`, and say why."
        for name in read.keys() - example()
    )
    none_of(
        f".env.example has {name}, which nobody reads: take it out, or read it in config/settings."
        for name in example() - asked_for
    )


def test_every_variable_of_the_deployment_is_one_that_somebody_reads():
    known = example() | OF_THE_DEPLOYMENT
    none_of(
        f"{file} names {name}, which nobody reads: .env.example doesn't have it. Is it misspelt?"
        for name, file in deployment_files.variables().items()
        if name not in known and not deployment_files.SERVERS_OWN.fullmatch(name)
    )


def test_every_variable_of_the_example_reaches_every_process():
    none_of(
        f"{process.file}: {process.name} gets nothing of {', '.join(sorted(missing))}."
        for process in processes()
        if (missing := deployment_files.SOURCES - process.sources)
    )
