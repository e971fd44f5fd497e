import pytest

from django_taskkit.doctor.clocks import Clock, compared
from django_taskkit.doctor.workers import tasks, versions, without_app
from django_taskkit.observability.workers import WorkerState


def worker(name="one", **facts):
    told = {
        "celery_version": "5.7.0",
        "taskkit_version": "0.1.0",
        "python_version": "3.13",
        "queues": ("doctor-default",),
    }
    return WorkerState(hostname=name, **{**told, **facts})


@pytest.fixture(autouse=True)
def _no_release(settings):
    settings.TASKKIT = {}


def test_workers_of_one_kind_are_fine():
    assert versions([worker("one"), worker("two")]).level.value == "ok"


@pytest.mark.parametrize("part", ["celery_version", "taskkit_version", "python_version", "release"])
def test_workers_that_differ_are_named_with_their_versions(part):
    found = versions([worker("one", **{part: "1"}), worker("two", **{part: "2"})])

    assert found.level.value == "warning"
    assert "1 (one), 2 (two)" in found.text


def test_a_release_that_is_not_this_process_is_noticed(settings):
    settings.TASKKIT = {"RELEASE": "new"}

    found = versions([worker(release="old")])

    assert found.level.value == "warning"
    assert "old (one), new (this process)" in found.text


def test_a_worker_without_the_app_is_an_error():
    [found] = without_app([worker("one"), worker("bare", taskkit_version="")])

    assert found.level.value == "error"
    assert "bare" in found.text
    assert "one" not in found.text.split()


def test_a_task_that_the_reader_of_its_queue_does_not_know_is_an_error(app, site, add_task):
    add_task("shop.new")
    known = frozenset(app.tasks) - {"shop.new"}

    [found] = tasks(site, [worker("old", tasks=known), worker("reads another", tasks=known, queues=("other",))])

    assert found.level.value == "error"
    assert found.text.startswith("old does not know shop.new,")


def test_workers_that_know_their_tasks_are_fine_and_those_that_do_not_tell_are_not_blamed(app, site):
    found = [*tasks(site, [worker(tasks=frozenset(app.tasks))]), *tasks(site, [worker(tasks=None)])]

    assert [finding.level.value for finding in found] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("ahead", "error", "level"),
    [
        (0.0, 0.0, "ok"),
        (1.9, 0.0, "ok"),
        (-3.0, 0.5, "warning"),
        (3.0, 2.0, "ok"),
        (-60.0, 1.0, "error"),
        (60, 1, "error"),
    ],
)
def test_clocks_may_differ_a_little_and_an_uncertain_one_is_not_blamed(ahead, error, level):
    assert compared("clocks", [Clock("one", 0.0, 0.0), Clock("two", ahead, error)]).level.value == level


def test_a_clock_that_is_off_is_named_with_its_direction():
    assert "two is 40.0 s behind" in compared("clocks", [Clock("two", -40.0, 0.0)]).text


def test_where_nobody_tells_the_time_it_is_unknown():
    assert compared("clocks", []).level.value == "unknown"
