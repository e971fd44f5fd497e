"""Nothing of a block reaches the project's broker, and nothing is left behind."""

import subprocess
import sys
import time
from datetime import datetime, timezone

import pytest
import time_machine
from celery import current_app, shared_task
from celery.backends.base import DisabledBackend
from django.test import override_settings
from kombu import pools

from django_taskkit import testing
from django_taskkit.base_tasks import BaseTaskWithRetry, DeadLetterTask
from django_taskkit.dlq import spool_files
from django_taskkit.exceptions import TaskkitError
from django_taskkit.outbox.presence import watch
from django_taskkit.testing import NestedError, inline_worker


def made_when_first_asked_for(app, task):
    return app.tasks, app.amqp.queues, task._get_exec_options()


def state_of(app, task):
    """All that a block changes, as far as it can be compared."""
    return {
        "conf": list(map(id, app.conf.maps)),
        "eager": app.conf.task_always_eager,
        "pool": app._pool,
        "amqp": dict(app.amqp.__dict__),
        "queues": set(app.amqp.queues),
        "backend": (app._backend_cache, getattr(app._local, "backend", None)),
        "task": {name: value for name, value in vars(task).items() if name != "backend"},
        "trace": task.__trace__,
        "pools": (len(pools.connections), len(pools.producers)),
        "spool": spool_files.path,
        "watch": (watch._alive, watch._known_until),
    }


def test_a_block_leaves_everything_as_it_was(app, add):
    made_when_first_asked_for(app, add)
    before = state_of(app, add)

    with inline_worker() as tasks:
        add.apply_async((1, 1), queue="somewhere-else")
        tasks.run()
        assert state_of(app, add) != before

    assert state_of(app, add) == before


def test_a_block_that_ends_by_an_error_leaves_everything_as_it_was(app, add):
    made_when_first_asked_for(app, add)
    before = state_of(app, add)

    def block():
        with inline_worker() as tasks:
            tasks.fail_times(add, 1)
            add.delay(1, 1)
            raise KeyError

    with pytest.raises(KeyError):
        block()

    assert state_of(app, add) == before


@pytest.mark.parametrize("base", [None, DeadLetterTask, BaseTaskWithRetry])
def test_a_task_runs_as_ever_after_a_block(app, base):
    @app.task(name="shop.echo", **({"base": base} if base else {}))
    def echo(value):
        return value

    with inline_worker() as tasks:
        tasks.fail_times(echo, 5)
        assert echo.delay(1)

    assert echo(1) == 1
    assert echo.apply((1,)).get() == 1


def test_the_clock_goes_on_after_a_block(app):
    before = time.time()
    with inline_worker() as tasks:
        tasks.advance(86_400)
        assert time.time() - before >= 86_400

    assert 0 <= time.time() - before < 600


def test_the_clock_stands_still_within_a_block(app):
    with inline_worker():
        assert len({time.time() for _ in range(1000)}) == 1


def test_blocks_see_nothing_of_each_other(app, add):
    with inline_worker() as tasks:
        result = add.delay(1, 1)
        tasks.run()

    with inline_worker() as tasks:
        assert tasks.run() == []
        assert (tasks.sent, tasks.ran, tasks.retries, tasks.waiting) == ([], [], [], [])
        assert app.AsyncResult(result.id).state == "PENDING"


def test_a_block_within_a_block_is_refused_with_the_place_of_the_first(app):
    with inline_worker() as tasks:
        with pytest.raises(NestedError, match=r"at work since .*test_isolation.py:\d+"), inline_worker():
            pass
        assert tasks.run() == []
    with inline_worker():
        pass


def test_without_a_database_tasks_run_that_need_none(app, add):
    with inline_worker() as tasks:
        result = add.delay(1, 1)
        tasks.run()

        assert result.get() == 2
        tasks.assert_nothing_left()


def test_without_a_database_a_death_is_noticed(app, add):
    with inline_worker() as tasks:
        tasks.fail_times(add, 1)
        add.delay(1, 1)
        tasks.run()

        with pytest.raises(AssertionError, match=r"messages died:\n  1 are spooled, .*\(pytest\.mark\.django_db\)"):
            tasks.assert_no_dead_letters()


def test_an_app_that_is_not_the_current_one_can_be_named(app, add):
    current_app.set_default()

    with inline_worker(app) as tasks:
        add.delay(1, 1)
        assert [ran.result for ran in tasks.run()] == [2]


def test_production_code_does_not_import_the_kit():
    program = (
        "import sys, django; from django.conf import settings;"
        "settings.configure(INSTALLED_APPS=['django_taskkit'], DATABASES={}); django.setup();"
        "import django_taskkit.base_tasks, django_taskkit.outbox.relay, django_taskkit.worker.hooks;"
        "print([name for name in sys.modules if name.startswith('django_taskkit.testing')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_plugin_imports_neither_django_nor_celery():
    program = (
        "import sys, pytest; import django_taskkit.testing.plugin, django_taskkit.testing;"
        "print([name for name in ('django', 'celery', 'kombu', 'time_machine') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_shared_tasks_are_those_of_the_app_that_is_named(app):
    @shared_task(name="shop.shared_elsewhere")
    def shared():
        return "done"

    app.loader.import_default_modules()
    other = type(app)("other", set_as_current=True, broker="redis://127.0.0.1:1/5")
    other.set_default()

    with inline_worker(app) as tasks:
        assert shared.app is app
        shared.delay()
        tasks.assert_sent(shared)
        tasks.run()
        tasks.assert_ran(shared, state="succeeded")

    assert current_app._get_current_object() is other


def test_what_workers_share_is_forgotten_after_a_block(app):
    runs = []

    @app.task(name="shop.once", base=BaseTaskWithRetry, idempotency_key=["order"])
    def once(order):
        runs.append(order)

    for _ in range(2):
        with inline_worker() as tasks, override_settings(TASKKIT={"SHARED_STORE": "redis://127.0.0.1:1/3"}):
            once.delay(order=7)
            once.delay(order=7)
            tasks.run()

    assert runs == [7, 7]


def test_a_task_with_a_result_backend_of_its_own_gets_the_one_of_the_block(app):
    own = DisabledBackend(app=app)

    @app.task(name="shop.own", backend=own)
    def own_backend():
        return "stored"

    with inline_worker() as tasks:
        result = own_backend.delay()
        tasks.run()
        assert app.AsyncResult(result.id).get() == "stored"

    assert own_backend.backend is own


def test_a_result_backend_that_was_assigned_to_a_task_is_put_back(app, add):
    own = DisabledBackend(app=app)
    add.backend = own

    with inline_worker() as tasks:
        result = add.delay(1, 1)
        tasks.run()
        assert result.get() == 2

    assert add.backend is own


def test_another_fake_clock_within_the_block_is_told_of(app, add):
    with inline_worker() as tasks, time_machine.travel(0):
        add.apply_async((1, 1), countdown=60)
        with pytest.raises(TaskkitError, match=r"another fake clock .* is at work"):
            tasks.advance(60)


def test_a_block_within_a_time_that_freezegun_holds_is_refused_with_the_remedy(app, add):
    freezegun = pytest.importorskip("freezegun")

    remedy = r"freezegun .*begin the block within a time_machine\.travel\(\)"
    with freezegun.freeze_time("2030-01-01"), pytest.raises(TaskkitError, match=remedy), inline_worker():
        pass

    with inline_worker() as tasks:
        add.delay(1, 1)
        tasks.run()
        tasks.assert_ran(add)


def test_a_block_begins_at_the_time_that_another_clock_shows(app, add):
    with time_machine.travel(datetime(2030, 1, 1, tzinfo=timezone.utc), tick=False), inline_worker() as tasks:
        add.apply_async((1, 1), countdown=60)
        tasks.advance(60)
        tasks.assert_ran(add)
        assert tasks.now.year == 2030


def test_every_public_name_can_be_imported():
    for name in testing.__all__:
        assert getattr(testing, name).__name__ == name
    assert list(testing.__all__) == sorted(testing.__all__)
    assert not hasattr(testing, "inline_workers")
