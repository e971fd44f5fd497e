"""The tests of a generated project hold its deployment to its settings: what is broken here, they find and name."""

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.template

LANES = "test_every_lane_has_a_worker"
NO_OTHERS = "test_no_worker_is_of_a_lane_that_is_not_there"
ALONE = "test_one_process_alone_asks_for_places"
LONGEST = "test_a_worker_may_take_as_long_to_stop_as_its_longest_task"
COLD = "test_a_cold_stop_ends_before_the_worker_is_killed"
SOFT = "test_a_task_hears_of_its_limit_before_it_is_killed"
WEB = "test_requests_end_before_the_web_is_killed"
BEAT = "test_beat_and_relay_can_write_down_where_they_are[celery -A config beat-30]"
READ = "test_every_variable_that_is_read_is_in_the_example_and_the_other_way_round"
NAMED = "test_every_variable_of_the_deployment_is_one_that_somebody_reads"
REACHES = "test_every_variable_of_the_example_reaches_every_process"
VISIBLE = "test_a_message_is_not_given_to_a_second_worker_while_the_first_is_at_it"

#: By deployment: file, what is in it, what is put in its place, and what is said then, by which test.
BROKEN = {
    "compose": [
        (
            "compose.yaml",
            "stop_grace_period: 355s",
            "stop_grace_period: 100s",
            LONGEST,
            "Write stop_grace_period: 355s.",
        ),
        ("compose.yaml", "taskkit, worker, default]", "taskkit, worker, other]", LANES, "lane 'default' has no worker"),
        ("compose.yaml", "taskkit, worker, default]", "taskkit, worker, other]", NO_OTHERS, "of a lane 'other'"),
        ("compose.yaml", "taskkit, worker, customers]", "taskkit, worker, geocoding]", ALONE, "must be one"),
        (
            "compose.yaml",
            "  stop_grace_period: 40s",
            "  stop_grace_period: 10s",
            WEB,
            "web needs stop_grace_period: 40s",
        ),
        ("compose.yaml", "TASKKIT_HEALTH_DIR:", "TASKIT_HEALTH_DIR:", NAMED, "names TASKIT_HEALTH_DIR"),
        ("compose.yaml", "env_file: [.env.production]", "env_file: []", REACHES, "gets nothing of .env.production"),
    ],
    "systemd": [
        ("deploy/systemd/shop-worker@.service", "TimeoutStopSec=355", "TimeoutStopSec=90", LONGEST, "=355"),
        ("deploy/systemd/shop.target", "worker@default", "worker@other", LANES, "lane 'default' has no worker"),
        ("deploy/systemd/shop.target", "worker@default", "worker@other", NO_OTHERS, "of a lane 'other'"),
        ("deploy/systemd/shop-web.service", "TimeoutStopSec=40", "TimeoutStopSec=30", WEB, "needs TimeoutStopSec=40"),
        ("deploy/systemd/shop-beat.service", "TimeoutStopSec=30", "TimeoutStopSec=5", BEAT, "needs TimeoutStopSec=30"),
        ("deploy/systemd/paths.env", "TASKKIT_HEALTH_DIR", "TASKIT_HEALTH_DIR", NAMED, "names TASKIT_HEALTH_DIR"),
        ("deploy/systemd/shop-web.service", "/etc/shop/env", "/etc/web/env", REACHES, "gets nothing of /etc/shop/env"),
    ],
    "supervisor": [
        ("deploy/supervisor/shop.conf", "stopwaitsecs=355", "stopwaitsecs=60", LONGEST, "Write stopwaitsecs=355."),
        ("deploy/supervisor/shop.conf", "taskkit worker default", "taskkit worker other", LANES, "'default' has no"),
        ("deploy/supervisor/shop.conf", "taskkit worker default", "taskkit worker other", NO_OTHERS, "a lane 'other'"),
        ("deploy/supervisor/shop.conf", "stopwaitsecs=40", "stopwaitsecs=10", WEB, "web needs stopwaitsecs=40"),
        ("deploy/supervisor/shop.conf", "stopwaitsecs=30", "stopwaitsecs=3", BEAT, "beat needs stopwaitsecs=30"),
        ("deploy/supervisor/shop.conf", "=TASKKIT_METRICS_PORT", "=TASKIT_PORT", NAMED, "names TASKIT_PORT"),
    ],
    "kubernetes": [
        ("deploy/kubernetes/lanes/reports/lane.yaml", "Seconds: 355", "Seconds: 90", LONGEST, "PeriodSeconds: 355"),
        ("deploy/kubernetes/lanes/kustomization.yaml", "  - default\n", "", LANES, "lane 'default' has no worker"),
        ("deploy/kubernetes/lanes/customers/lane.yaml", "worker, customers]", "worker, c]", NO_OTHERS, "a lane 'c'"),
        ("deploy/kubernetes/lanes/geocoding/lane.yaml", "replicas: 1", "replicas: 2", ALONE, "must be one"),
        ("deploy/kubernetes/base/web.yaml", "Seconds: 50", "Seconds: 40", WEB, "needs terminationGrace"),
        ("deploy/kubernetes/base/beat.yaml", "Seconds: 30\n", "Seconds: 3\n", BEAT, "PeriodSeconds: 30"),
        ("deploy/kubernetes/pod/pod.yaml", "name: TASKKIT_HEALTH_DIR", "name: HEALTH_DIR", NAMED, "names HEALTH_DIR"),
        ("deploy/kubernetes/pod/pod.yaml", "secretRef: {name: secrets}", "secretRef: {name: s}", REACHES, "of secrets"),
    ],
    # The settings, with any deployment.
    "settings": [
        ("config/settings/tasks.py", "SOFT_TIME_LIMIT = 45", "SOFT_TIME_LIMIT = 90", SOFT, "assert 90 < 61"),
        (
            "config/settings/tasks.py",
            "SHUTDOWN_TIMEOUT = 10",
            "SHUTDOWN_TIMEOUT = 400",
            COLD,
            "SOFT_SHUTDOWN_TIMEOUT (400)",
        ),
        ("config/settings/tasks.py", "TIMEOUT = 400", "TIMEOUT = 400\nCELERY_TASK_TIME_LIMIT = 61", LONGEST, "505s"),
        (".env.example", "\nVAR_DIR=", "\nVARDIR=", READ, "reads VAR_DIR, which .env.example doesn't have"),
    ],
}

OTHERS = {
    "compose": {"broker": "redis"},
    "systemd": {},
    "supervisor": {"observability": "prometheus"},
    "kubernetes": {"database": "postgresql", "broker": "rabbitmq"},
}


def failures(project, environment):
    """The tests that fail, and everything that was printed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "tests/test_deployment.py"],
        cwd=project.path,
        env=project.environment(**environment),
        capture_output=True,
        text=True,
        timeout=300,
    )
    return set(
        re.findall(r"^FAILED tests/test_deployment\.py::(.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    ), done.stdout


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_is_found_and_named(bake, servers, tmp_path, broken):
    deployment = "compose" if broken == "settings" else broken
    baked = bake(deployment=deployment, **OTHERS[deployment])
    environment = servers.environment(baked)
    project = baked.copy(tmp_path / "shop")
    (project.path / ".env").write_text(baked.text(".env"))
    for file, old, new, *_ in {change[:3]: change for change in BROKEN[broken]}.values():
        text = project.text(file)
        assert old in text, f"{old!r} is not in {file}"
        (project.path / file).write_text(text.replace(old, new), encoding="utf-8")
    found, said = failures(project, environment)

    missed = [(test, words) for *_, test, words in BROKEN[broken] if test not in found or words not in said]
    assert not missed, said


def test_a_message_that_comes_back_too_early_is_found(bake, servers, tmp_path):
    baked = bake(broker="redis")
    project = baked.copy(tmp_path / "shop")
    (project.path / ".env").write_text(baked.text(".env"))
    settings = project.path / "config" / "settings" / "development.py"
    settings.write_text(
        settings.read_text() + 'CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 30}  # noqa: F405\n'
    )

    found, said = failures(project, servers.environment(baked))

    assert found == {VISIBLE}
    assert "visible again after 30" in said
