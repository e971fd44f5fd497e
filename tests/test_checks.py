"""manage.py check names what is wrong before a worker meets it."""

from datetime import timedelta

import pytest
from celery import _state
from django.core import checks
from django.core.management import CommandError, call_command
from kombu import Queue

from django_taskkit.base_tasks import BaseTaskWithRetry, options
from django_taskkit.models import DeadLetter
from django_taskkit.stores import visibility
from django_taskkit.transports.redis import Transport
from django_taskkit.worker import startup
from tests.letters import dead_letter


def messages():
    return [message for message in checks.run_checks() if message.id.startswith("taskkit.")]


def test_a_project_that_is_right_hears_nothing(station):
    assert messages() == []


def test_e001_a_setting_that_is_not_one(station, settings):
    settings.TASKKIT = {"RELAESE": "1", "CAPTURE": "none"}

    assert [message.id for message in messages()] == ["taskkit.E001", "taskkit.E001"]
    assert "did you mean 'RELEASE'?" in messages()[0].msg
    assert "docs/" not in messages()[0].hint
    with pytest.raises(CommandError, match="did you mean 'RELEASE'"):
        call_command("check")


def test_e002_retry_options_that_make_no_sense(station):
    """They are not refused when the task is registered: that would keep others from being registered."""

    @station.app.task(base=BaseTaskWithRetry, name="fetch", max_retries=-1)
    def fetch(): ...

    [message] = messages()
    assert message.id == "taskkit.E002"
    assert message.msg.startswith("fetch: max_retries: -1 makes no sense")


def test_e002_before_deployment_also_for_tasks_that_nothing_has_imported_yet(station):
    def import_default_modules():
        if "late" in station.app.tasks:
            return

        @station.app.task(base=BaseTaskWithRetry, name="late", retry_jitter="equel")
        def late(): ...

    station.app.loader.import_default_modules = import_default_modules

    assert messages() == []
    found = [message for message in checks.run_checks(include_deployment_checks=True) if message.id == "taskkit.E002"]

    assert [message.obj for message in found] == ["late"]


def test_e003_a_spool_that_is_an_intake_queue_as_well(station, settings):
    settings.TASKKIT = {"SPOOL_QUEUE": "spool", "INTAKE_QUEUES": ["dead", "spool"]}

    [message] = messages()
    assert (message.id, message.is_serious()) == ("taskkit.E003", True)
    assert "'spool' is TASKKIT['SPOOL_QUEUE']" in message.msg
    assert "INTAKE_QUEUES" in message.hint


@pytest.mark.parametrize(
    "queues",
    [{"task_queues": [Queue("orders"), Queue("dead")]}, {"task_queues": {"dead": {}}}, {"task_default_queue": "dead"}],
)
@pytest.mark.parametrize("taskkit", [{"SPOOL_QUEUE": "dead"}, {"INTAKE_QUEUES": ["dead"]}])
def test_e004_a_queue_of_ours_that_workers_read(station, settings, queues, taskkit):
    settings.TASKKIT = taskkit
    station.app.conf.update(queues)

    [message] = messages()
    assert (message.id, message.is_serious()) == ("taskkit.E004", True)
    assert message.msg == f"Workers read the queue 'dead', which TASKKIT[{next(iter(taskkit))!r}] names."
    assert "task_queues" in message.hint


def test_e004_not_for_the_default_queue_where_task_queues_says_what_is_read(station, settings):
    settings.TASKKIT = {"INTAKE_QUEUES": ["dead"]}
    station.app.conf.update(task_default_queue="dead", task_queues=[Queue("orders")])

    assert messages() == []


def test_nothing_is_said_of_queues_while_the_setting_makes_no_sense(station, settings):
    settings.TASKKIT = {"INTAKE_QUEUES": "dead"}

    assert [message.id for message in messages()] == ["taskkit.E001"]


def test_w005_a_process_without_the_projects_app(no_app):
    [message] = messages()

    assert message.id == "taskkit.W005"
    assert "from .celery import app" in message.hint
    assert _state.default_app is None, "Celery would not let the project's app be the default any more"


def deployment(*ids):
    return [message for message in checks.run_checks(include_deployment_checks=True) if message.id in ids]


def test_w001_before_deployment_tasks_that_a_killed_worker_takes_along(station):
    @station.app.task(name="early")
    def early(): ...

    @station.app.task(name="acknowledged late", acks_late=True)
    def late(): ...

    found = {message.obj: message.msg for message in deployment("taskkit.W001")}
    assert "killed as a whole" in found["early"]
    assert "acknowledged late" not in found
    assert messages() == []


def test_w002_redis_is_read_in_two_steps(station):
    station.app.conf.broker_url = "redis://127.0.0.1:1/0"

    [message] = deployment("taskkit.W002")
    assert 'CELERY_BROKER_TRANSPORT = "django_taskkit.transports.redis:Transport"' in message.hint
    assert "broker_transport" in message.hint
    assert "docs/" not in message.hint

    station.app.conf.broker_transport = "django_taskkit.transports.redis:Transport"
    assert deployment("taskkit.W002") == []


def test_w003_a_task_that_may_run_longer_than_redis_hides_its_message(station):
    station.app.conf.update(broker_url="redis://127.0.0.1:1/0", broker_transport_options={"visibility_timeout": 60})

    @station.app.task(name="long", acks_late=True, time_limit=120)
    def long(): ...

    @station.app.task(name="short", acks_late=True, time_limit=30)
    def short(): ...

    [message] = deployment("taskkit.W003")
    assert (message.obj, message.msg[:23]) == ("long", "Its time_limit of 120 s")


def test_w003_is_one_line_where_the_limit_is_the_settings(station):
    station.app.conf.update(
        broker_url="redis://127.0.0.1:1/0",
        broker_transport_options={"visibility_timeout": 60},
        task_time_limit=120,
        task_acks_late=True,
    )

    @station.app.task(name="one")
    def one(): ...

    @station.app.task(name="two")
    def two(): ...

    @station.app.task(name="own", time_limit=240)
    def own(): ...

    @station.app.task(name="short", time_limit=30)
    def short(): ...

    setting, task = deployment("taskkit.W003")
    assert (setting.obj, setting.msg[:30]) == (None, "The task_time_limit of 120 s i")
    assert (task.obj, task.msg[:23]) == ("own", "Its time_limit of 240 s")


def test_w003_is_silent_of_celerys_tasks_and_of_the_relay(station):
    station.app.conf.update(
        broker_url="redis://127.0.0.1:1/0",
        broker_transport_options={"visibility_timeout": 60},
        task_time_limit=120,
        task_acks_late=True,
    )

    # Tasks that other tests share with every app.
    for name in [name for name in station.app.tasks if not name.startswith(("celery.", "taskkit."))]:
        station.app.tasks.unregister(name)

    assert {"celery.chord_unlock", "taskkit.relay"} <= set(station.app.tasks)
    assert deployment("taskkit.W003") == []


def test_w004_rabbitmq_without_confirms(station):
    station.app.conf.update(broker_url="amqp://127.0.0.1:1//", broker_transport_options={"confirm_publish": False})

    assert [message.id for message in deployment("taskkit.W004")] == ["taskkit.W004"]


def test_w003_a_time_to_be_visible_that_says_nothing_is_the_default(station):
    station.app.conf.update(broker_url="redis://127.0.0.1:1/0", broker_transport_options={"visibility_timeout": None})

    @station.app.task(name="long", acks_late=True, time_limit=3600)
    def long(): ...

    assert [message.obj for message in deployment("taskkit.W003")] == ["long"]


def test_w002_not_for_a_transport_that_builds_on_ours(station):
    station.app.conf.update(broker_url="redis://127.0.0.1:1/0", broker_transport="tests.test_checks:OwnTransport")

    assert deployment("taskkit.W002") == []


def test_w002_is_about_the_broker_that_workers_read_from(station):
    station.app.conf.update(broker_read_url="redis://127.0.0.1:1/0", broker_write_url="amqp://127.0.0.1:1//")

    assert [message.id for message in deployment("taskkit.W002")] == ["taskkit.W002"]


def test_a_transport_that_is_not_installed_ends_no_check(station):
    station.app.conf.broker_url = "nonsense://127.0.0.1"

    assert deployment("taskkit.W002", "taskkit.W003", "taskkit.W004") == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"broker_transport": "django_taskkit.transports.reddis:Transport"}, "No module named"),
        ({"broker_transport": "django_taskkit.transports.redis:Trnasport"}, "Trnasport"),
        ({"broker_url": "nonsense://127.0.0.1"}, "nonsense"),
    ],
)
def test_e005_a_transport_that_cant_be_loaded(station, wrong, says):
    station.app.conf.update({"broker_url": "redis://127.0.0.1:1/0", **wrong})

    [message] = deployment("taskkit.E005")  # once, though it is both read from and written to
    assert message.is_serious()
    assert says in message.msg
    assert "broker_transport" in message.hint
    assert "pip install" in message.hint


def test_w006_a_spool_whose_folder_cant_be_made(station, settings, tmp_path):
    (tmp_path / "file").touch()
    for name, wrong in (("made/later", False), ("file", True), ("file/spool", True)):
        settings.TASKKIT = {"SPOOL_DIR": str(tmp_path / name)}

        found = deployment("taskkit.W006")

        assert [str(tmp_path / name) in message.msg for message in found] == [True] * wrong
    assert "SPOOL_DIR" in found[0].hint
    assert not (tmp_path / "made").exists()


def test_w006_a_spool_whose_folder_anybody_may_write(station, settings, tmp_path):
    tmp_path.chmod(0o777)
    settings.TASKKIT = {"SPOOL_DIR": str(tmp_path)}

    assert [message.id for message in deployment("taskkit.W006")] == ["taskkit.W006"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"retry_in": "soon"}, "retry_in: 'soon' makes no sense; give a function of 2 arguments"),
        ({"retry_in": lambda exc: 5}, "has to take 2 arguments"),
        ({"on_retries_exhausted": len}, "has to take 2 arguments"),
        ({"delivery_limit": "x"}, "delivery_limit: 'x' makes no sense; give a whole number"),
        ({"outbox": "maybe"}, "outbox: 'maybe' makes no sense; give True, False or None"),
        ({"unsafe_arguments": "yes"}, "unsafe_arguments: 'yes' makes no sense; give one of 'error', 'warn', 'allow'"),
    ],
)
def test_e002_options_that_would_fail_only_when_the_task_does(station, options, complaint):
    @station.app.task(base=BaseTaskWithRetry, name="fetch", **options)
    def fetch(): ...

    [message] = messages()

    assert message.id == "taskkit.E002"
    assert message.msg.startswith("fetch: ")
    assert complaint in message.msg


def test_w011_an_option_of_another_base_class(station):
    @station.app.task(name="pay", idempotency_key=("order",), acks_late=True)
    def pay(order): ...

    [message] = deployment("taskkit.W011")

    assert (message.obj, message.msg) == ("pay", "Its option idempotency_key does nothing.")


def uses_a_budget(station):
    @station.app.task(base=BaseTaskWithRetry, name="pay", retry_budget="bank")
    def pay(): ...


def test_the_store_is_looked_at_for_every_option_that_puts_a_gate_before_a_body():
    assert sorted(visibility.OPTIONS) == sorted(options.GATES)


def test_e006_a_store_that_keeps_nothing(station, settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    assert messages() == []
    uses_a_budget(station)

    [message] = messages()

    assert message.id == "taskkit.E006"
    assert "a DummyCache, which keeps nothing" in message.msg
    assert "pay" in message.hint
    assert "taskkit.W010" not in [found.id for found in checks.run_checks(include_deployment_checks=True)]
    with pytest.raises(SystemExit, match="DummyCache"):
        startup._refuse_bad_settings(instance=station)


def test_w010_a_store_that_other_processes_do_not_see(station, settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    uses_a_budget(station)

    assert messages() == []  # which is how one develops
    assert [message.id for message in deployment("taskkit.W010")] == ["taskkit.W010"]


@pytest.mark.django_db
def test_w009_too_many_dead_letters_wait_or_for_too_long(station, settings):
    settings.TASKKIT = {"DEAD_WARN_COUNT": 1, "DEAD_WARN_AGE_DAYS": 10}
    for _ in range(2):
        dead_letter(ago=timedelta(days=12))

    many, old = (message for message in checks.run_checks(databases=["default"]) if message.id == "taskkit.W009")
    assert many.msg == "More than 1 dead letters wait for someone (TASKKIT['DEAD_WARN_COUNT'])."
    assert "has waited for 12 days" in old.msg
    assert "manage.py taskkit list" in many.hint
    assert "--until 10d" in old.hint
    assert messages() == [], "a check without --database asks none"
    settings.TASKKIT = {"DEAD_WARN_COUNT": "many"}
    assert [message.id for message in checks.run_checks(databases=["default"])] == ["taskkit.E001"]


@pytest.mark.django_db
def test_w009_is_silent_while_there_is_no_table(station, monkeypatch):
    monkeypatch.setattr(DeadLetter._meta, "db_table", "not_migrated_yet")

    assert checks.run_checks(databases=["default"]) == []


def test_no_check_connects_to_a_broker(station, monkeypatch):
    def connect(*args, **kwargs):
        raise AssertionError("it connected")

    monkeypatch.setattr("socket.socket.connect", connect)
    for url in ("redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//", "sentinel://127.0.0.1:1"):
        station.app.conf.broker_url = url
        deployment()


class OwnTransport(Transport):
    """Of a project that adds something to ours."""
