"""Tasks of BaseTaskWithRetry together with other people's task classes, apps and ways to make a task."""

import copy
import pickle

import celery
import pytest
from celery import shared_task
from celery.app import trace
from celery.contrib.django.task import DjangoTask

from django_taskkit.base_tasks import BaseTaskWithRetry, DeadLetterTask, Permanent, RetryPolicy
from django_taskkit.base_tasks.rules import rules_of
from django_taskkit.models import DeadLetter
from tests.own_apps import OwnTasks

pytestmark = pytest.mark.django_db


@pytest.fixture
def notes():
    """What the classes of the tests note."""
    return []


def fails(*args):
    raise ValueError("no")


@pytest.fixture
def in_a_worker(station):
    """What a worker does to ``Task.__call__``, so that a class that has one of its own can call it."""
    trace._install_stack_protection()
    yield
    trace.reset_worker_optimizations(station.app)


# Their class beside ours, on either side of it.

ORDERS = {
    "theirs first": lambda theirs: (theirs, BaseTaskWithRetry),
    "ours first": lambda theirs: (BaseTaskWithRetry, theirs),
}


@pytest.fixture(params=ORDERS.values(), ids=ORDERS)
def mix(request):
    """Makes a class of theirs and ours."""
    return lambda theirs, **attributes: type("Mixed", request.param(theirs), {"abstract": True, **attributes})


def test_a_call_of_their_own_sees_each_run(station, mix, notes, in_a_worker):
    class Timed(celery.Task):
        abstract = True

        def __call__(self, *args, **kwargs):
            notes.append(self.request.retries)
            return super().__call__(*args, **kwargs)

    station.app.task(base=mix(Timed), name="t.timed", max_retries=2)(fails).delay()
    station.run_all()

    assert notes == [0, 1, 2]
    assert DeadLetter.objects.get().reason == "retries_exhausted"


def test_a_call_of_their_own_that_runs_the_body_itself_sees_each_run(station, mix, notes):
    class Direct(celery.Task):
        abstract = True

        def __call__(self, *args, **kwargs):
            notes.append(self.request.retries)
            return self.run(*args, **kwargs)

    station.app.task(base=mix(Direct), name="t.direct", max_retries=2)(fails).delay()
    station.run_all()

    assert notes == [0, 1, 2]


def test_an_init_that_calls_no_other_does_no_harm(station, mix):
    class Configured(celery.Task):
        abstract = True

        def __init__(self):
            self.client = "connected"

    def connects(self):
        raise ConnectionError(self.client)

    task = station.app.task(base=mix(Configured), name="t.configured", bind=True, max_retries=2)(connects)
    task.delay()

    assert station.run_all() == 3
    assert task.client == "connected"


def test_an_apply_async_of_their_own_is_used_for_retries_too(station, mix):
    class Tenant(celery.Task):
        abstract = True

        def apply_async(self, args=None, kwargs=None, **options):
            headers = {**(options.pop("headers", None) or {}), "tenant": "a"}
            return super().apply_async(args, kwargs, headers=headers, **options)

    station.app.task(base=mix(Tenant), name="t.tenant", max_retries=1)(fails).delay()
    station.run_next()

    assert station.take().headers["tenant"] == "a"


def test_their_handlers_are_called_once_for_what_they_are_for(station, mix, notes):
    class Telling(celery.Task):
        abstract = True

        def before_start(self, *args):
            notes.append("before")

        def on_retry(self, exc, *args):
            notes.append(f"retry {exc}")

        def on_failure(self, exc, *args):
            notes.append(f"failure {exc}")

        def after_return(self, status, *args):
            notes.append(status)

    station.app.task(base=mix(Telling), name="t.telling", max_retries=1)(fails).delay()
    station.run_all()

    assert notes == ["before", "retry no", "before", "failure no", "FAILURE"]
    assert DeadLetter.objects.count() == 1


def test_a_retry_of_their_own_is_called_when_the_task_retries_by_hand(station, mix, notes):
    class Noting(celery.Task):
        abstract = True

        def retry(self, *args, **options):
            notes.append("retry")
            return super().retry(*args, **options)

    def by_hand(self):
        raise self.retry(countdown=3)

    task = station.app.task(base=mix(Noting), name="t.noting", bind=True, max_retries=1, autoretry_for=())(by_hand)
    task.delay()
    station.run_next()

    assert notes == ["retry"]


def test_a_task_of_djangos_contrib_is_sent_on_commit(station, notes, django_capture_on_commit_callbacks):
    class Mixed(BaseTaskWithRetry, DjangoTask):
        abstract = True

    task = station.app.task(base=Mixed, name="t.django", max_retries=1)(fails)

    with django_capture_on_commit_callbacks(execute=True):
        task.delay_on_commit()
        assert station.waiting() == 0

    assert station.run_all() == 2


def test_dead_letter_tasks_of_the_project_can_be_made_to_retry(station):
    class ProjectTask(DeadLetterTask):
        abstract = True
        acks_late = False

    class Retried(BaseTaskWithRetry, ProjectTask):
        abstract = True

    task = station.app.task(base=Retried, name="t.both", max_retries=1)(fails)
    task.delay()

    assert station.run_all() == 2
    assert not task.acks_late


# Options: which of those that are said in several places counts


class TheirRetries(celery.Task):
    """Has options of Celery's own loop, which must not be wrapped around ours."""

    abstract = True
    autoretry_for = (KeyError,)
    max_retries = 1
    retry_backoff = 30
    retry_jitter = False


def test_retry_options_of_their_class_count_where_it_comes_first(station, delays):
    class Mixed(TheirRetries, BaseTaskWithRetry):
        abstract = True

    @station.app.task(base=Mixed, name="t.mixed")
    def mixed(cls):
        raise {"KeyError": KeyError, "ValueError": ValueError}[cls]

    mixed.delay("ValueError")
    assert station.run_all() == 1
    mixed.delay("KeyError")
    assert station.run_all() == 2
    assert delays == [30]


def test_ours_count_where_ours_comes_first(station, delays):
    class Mixed(BaseTaskWithRetry, TheirRetries):
        abstract = True

    task = station.app.task(base=Mixed, name="t.mixed", retry_jitter=False)(fails)
    task.delay()

    assert station.run_all() == 6
    assert delays == [1, 2, 4, 8, 16]


class Project(BaseTaskWithRetry):
    abstract = True
    max_retries = 4
    retry_backoff = 10
    retry_jitter = False
    retry_policies = {
        OSError: RetryPolicy(max_retries=1, backoff=3, jitter=False),
        LookupError: Permanent,
    }


class Payments(Project):
    abstract = True
    max_retries = 2
    retry_policies = {
        ConnectionError: RetryPolicy(max_retries=2, backoff=5, jitter=False),
        LookupError: RetryPolicy(max_retries=1, backoff=7, jitter=False),
    }


def raises(cls):
    raise {"os": OSError, "refused": ConnectionRefusedError, "key": KeyError, "value": ValueError}[cls]


@pytest.mark.parametrize(
    ("base", "error", "expected"),
    [
        (Project, "os", [3]),
        (Project, "refused", [3]),
        (Project, "key", []),
        (Project, "value", [10, 20, 40, 80]),
        (Payments, "os", [3]),  # inherited
        (Payments, "refused", [5, 10]),  # more specific
        (Payments, "key", [7]),  # overruled
        (Payments, "value", [10, 20]),
    ],
)
def test_policies_of_a_subclass_are_merged_with_those_of_its_base(station, delays, base, error, expected):
    station.app.task(base=base, name="t.raises")(raises).delay(error)
    station.run_all()

    assert delays == expected


def test_policies_of_a_decorator_are_merged_with_those_of_the_class(station, delays):
    task = station.app.task(base=Payments, name="t.raises", retry_policies={KeyError: Permanent})(raises)
    task.delay("key")
    task.delay("refused")
    station.run_all()

    assert delays == [5, 10]
    assert set(DeadLetter.objects.values_list("reason", flat=True)) == {"permanent", "retries_exhausted"}


def test_policies_of_two_bases_are_merged_and_the_first_base_wins(station):
    class Mailing(BaseTaskWithRetry):
        abstract = True
        retry_policies = {OSError: Permanent, ValueError: Permanent}

    class Both(Payments, Mailing):
        abstract = True

    rules = rules_of(station.app.task(base=Both, name="t.both")(fails))

    assert rules.policy_for(OSError()) == Project.retry_policies[OSError]
    assert rules.policy_for(ConnectionResetError()) == Payments.retry_policies[ConnectionError]
    assert rules.policy_for(ValueError()) is Permanent


def test_policies_of_annotations_are_merged_too(station, delays):
    station.app.conf.task_annotations = {"t.raises": {"retry_policies": {KeyError: Permanent}}}
    task = station.app.task(base=Payments, name="t.raises")(raises)
    task.delay("key")
    task.delay("refused")
    station.run_all()

    assert delays == [5, 10]


def test_no_class_is_changed_by_what_its_subclasses_and_tasks_say(station):
    before = dict(Project.retry_policies)

    rules_of(station.app.task(base=Payments, name="t.x", retry_policies={ValueError: Permanent})(fails))

    assert Project.retry_policies == before
    assert ValueError not in Payments.retry_policies
    assert BaseTaskWithRetry.retry_policies == {}


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        (None, [20, 40]),
        ({"t.fails": {"retry_backoff": 5}}, [5, 10]),
        ({"*": {"max_retries": 1}}, [20]),
        ([{"t.fails": {"max_retries": 1}}, {"*": {"retry_backoff": 5}}], [5]),
    ],
    ids=["none", "by name", "for all", "several"],
)
def test_the_decorator_overrides_the_class_and_an_annotation_both(station, delays, annotations, expected):
    station.app.conf.task_annotations = annotations
    station.app.task(base=Payments, name="t.fails", retry_backoff=20)(fails).delay()
    station.run_all()

    assert delays == expected


def test_an_annotation_may_wrap_the_run(station, notes):
    def noting(run):
        def wrapped(*args, **kwargs):
            notes.append("run")
            return run(*args, **kwargs)

        return wrapped

    station.app.conf.task_annotations = {"t.fails": {"@run": noting}}
    station.app.task(base=BaseTaskWithRetry, name="t.fails", bind=True, max_retries=1)(fails).delay()
    station.run_all()

    assert notes == ["run", "run"]


def test_a_run_that_calls_its_bases_run_is_retried_once_for_each_failure(station, notes):
    class Base(BaseTaskWithRetry):
        abstract = True

        def run(self, number):
            notes.append(number)
            raise ValueError

    class Child(Base):
        name = "t.child"
        max_retries = 2

        def run(self, number):
            return super().run(number + 1)

    station.app.register_task(Child()).delay(1)
    station.run_all()

    assert notes == [2, 2, 2]


# Apps


def test_the_task_class_of_an_app_can_be_set_after_it_was_made(station):
    class Patient(BaseTaskWithRetry):
        abstract = True
        autoretry_for = (ValueError,)
        max_retries = 1

    station.app.Task = Patient
    station.app.task(name="t.fails")(fails).delay()

    assert station.run_all() == 2


def test_a_shared_task_is_a_task_of_its_own_in_each_app(station):
    @shared_task(base=BaseTaskWithRetry, name="t.shared_by_apps", max_retries=1, bind=True)
    def shared(self):
        raise ValueError(self.app.main)

    other = OwnTasks("other", set_as_current=False)
    try:
        one, two = station.app.tasks["t.shared_by_apps"], other.tasks["t.shared_by_apps"]
        two.max_retries = 7

        assert one is not two
        assert (one.app, two.app) == (station.app, other)
        assert (rules_of(one).default.max_retries, rules_of(two).default.max_retries) == (1, 7)

        one.delay()
        assert station.run_all() == 2
        assert DeadLetter.objects.get().exception_message == "station"
    finally:
        other.close()


def test_the_proxy_of_a_shared_task_has_the_rules_of_the_task(station):
    @shared_task(base=BaseTaskWithRetry, name="t.proxied", max_retries=3, retry_policies={KeyError: Permanent})
    def proxied():
        pass

    assert rules_of(proxied) == rules_of(station.app.tasks["t.proxied"])
    assert rules_of(proxied).policy_for(KeyError()) is Permanent


# Copies


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda task: pickle.loads(pickle.dumps(task)),
    ],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_of_a_task_is_the_task_that_is_registered(station, copied):
    task = station.app.task(base=BaseTaskWithRetry, name="t.copied", max_retries=1, shared=True)(fails)
    station.app.finalize()

    other = copied(station.app.tasks["t.copied"])
    other.delay()

    assert other is station.app.tasks[task.name]
    assert station.run_all() == 2


def test_two_tasks_of_one_class_are_apart(station, notes):
    class Named(BaseTaskWithRetry):
        def __init__(self, name, limit):
            self.name = name
            self.max_retries = limit

        def run(self):
            notes.append(self.name)
            raise ValueError

    for name, limit in (("t.once", 0), ("t.thrice", 2)):
        station.app.register_task(Named(name, limit)).delay()
    station.run_all()

    assert sorted(notes) == ["t.once", "t.thrice", "t.thrice", "t.thrice"]
