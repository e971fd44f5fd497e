"""The command lines of `taskkit workers`, run as printed: each worker reads its lane, as the lane says."""

import pytest
from lane_project import projects
from lanes_app import app as lanes_app

from django_taskkit.routing import Lane


@pytest.fixture
def project(broker, tmp_path):
    with projects(broker, tmp_path) as make:
        yield make


MAIL = {"mail": Lane(pool="threads", concurrency=3), "reports": Lane(prefetch=1, time_limit=600, max_tasks_per_child=9)}


@pytest.mark.parametrize("broker", ["redis", "rabbitmq-quorum"], indirect=True)
def test_each_worker_reads_its_lane_alone_with_the_pool_and_limits_that_were_meant(project):
    project = project(**MAIL)
    project.broker.settings.update(task_time_limit=60, task_soft_time_limit=45)

    project.start()

    app = project.broker.app()
    names = {"default", "mail", "reports"}

    def ask(what):
        """Each worker's answer, by its lane; asked again until all have answered."""

        def answers():
            found = getattr(app.control.inspect(timeout=3), what)() or {}
            found = {node.partition("@")[0].rpartition("-")[2]: answer for node, answer in found.items()}
            return found if set(found) == names else None

        return project.wait_until(answers, f"all workers say their {what}")

    queues, stats, conf = ask("active_queues"), ask("stats"), ask("conf")
    app.close()
    assert {name: [queue["name"] for queue in queues[name]] for name in names} == {
        name: [f"{project.broker.queue}.{name}"] for name in names
    }
    assert {name: stats[name]["pool"]["implementation"].partition(":")[0] for name in names} == {
        "default": "celery.concurrency.prefork",
        "mail": "celery.concurrency.thread",
        "reports": "celery.concurrency.prefork",
    }
    pools = {name: stats[name]["pool"]["max-concurrency"] for name in names}
    assert pools == {"default": 2, "mail": 3, "reports": 2}
    assert stats["reports"]["pool"]["max-tasks-per-child"] == 9
    assert stats["reports"]["prefetch_count"] == 2
    assert {name: (conf[name]["task_time_limit"], conf[name]["task_soft_time_limit"]) for name in names} == {
        "default": (60, 45),
        "mail": (60, 45),
        "reports": (600, 540),
    }


def test_the_limit_of_a_lane_holds_and_that_of_the_project_does_in_the_others(project):
    project = project(slow=Lane(time_limit=90))
    project.broker.settings.update(task_time_limit=1)
    project.start()

    project.send("take", "default", "short", 60)
    project.send("take", "slow", "long", 4)

    project.wait_until(lambda: project.noted("finished"), "the slow lane's task has finished")
    project.wait_until(lambda: "TimeLimitExceeded" in project.log("default"), "the default lane's has been killed")
    assert project.noted("finished") == {"long": 1}
    assert "TimeLimitExceeded" not in project.log("slow")


def test_the_project_of_these_tests_has_the_tasks_that_they_send():
    assert {"lanes_app.wait_for", "lanes_app.take"} <= set(lanes_app.tasks)
