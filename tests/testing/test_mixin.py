"""The kit in Django's own test cases."""

import pytest
from celery import Celery, _state
from celery.contrib.django.task import DjangoTask
from django.contrib.auth.models import User
from django.db import transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.testing import TaskkitTestMixin


class ProjectApp:
    """The current app, with two tasks, for as long as a test case runs."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        before, default = _state._get_current_app(), _state.default_app
        app = Celery("project", set_as_current=True, task_cls=DjangoTask, broker="redis://127.0.0.1:1")
        app.set_default()
        cls.addClassCleanup(_state._set_current_app, before)
        cls.addClassCleanup(_state.set_default_app, default)

        @app.task(name="shop.register", base=BaseTaskWithRetry, retry_jitter=False, shared=False)
        def register(name):
            User.objects.create(username=name)

        cls.register = register


class InATransaction(TaskkitTestMixin, ProjectApp, TestCase):
    def test_tasks_run_and_retry(self):
        self.tasks.fail_times(self.register, 2)

        self.register.delay("anna")
        self.tasks.advance_retries(times=2)

        self.tasks.assert_retried(self.register, times=2, delay_between=(1, 2))
        assert User.objects.filter(username="anna").exists()
        self.tasks.assert_nothing_left()

    def test_a_task_that_dies_is_a_dead_letter(self):
        self.register.delay("anna")
        self.register.delay("anna")
        self.tasks.advance_retries(times=None)

        self.tasks.assert_dead(self.register, reason="retries_exhausted", exception="IntegrityError")

    def test_delay_on_commit_sends_at_the_commit(self):
        with self.captureOnCommitCallbacks(execute=True):
            self.register.delay_on_commit("anna")
            self.tasks.assert_not_sent(self.register)

        self.tasks.run()
        self.tasks.assert_ran(self.register, times=1, state="succeeded")

    def test_the_outbox_takes_over_while_the_broker_is_down(self):
        with self.tasks.broker_down(), transaction.atomic():
            self.register.delay("anna")
        self.tasks.run()

        self.tasks.assert_ran(self.register, state="succeeded")


class Eagerly(TaskkitTestMixin, ProjectApp, TestCase):
    taskkit_options = {"eager": True}

    def test_tasks_and_their_retries_run_at_once(self):
        self.tasks.fail_times(self.register, 5)

        self.register.delay("anna")

        assert User.objects.filter(username="anna").exists()
        self.tasks.assert_retried(self.register, times=5)

    def test_a_task_that_is_sent_in_a_transaction_may_die(self):
        with transaction.atomic():
            User.objects.create(username="anna")
            self.register.delay("anna")

        self.tasks.assert_dead(self.register)
        assert User.objects.count() == 1


class WithoutATransaction(TaskkitTestMixin, ProjectApp, TransactionTestCase):
    def test_tasks_run_and_die(self):
        self.register.delay("anna")
        self.register.delay("anna")
        self.tasks.advance_retries(times=None)

        self.tasks.assert_dead(self.register, exception="IntegrityError")

    def test_the_outbox_and_the_spool_take_over(self):
        with self.tasks.broker_down():
            self.register.delay("anna")
        self.tasks.run()
        self.tasks.fail_times(self.register, 99)
        self.register.delay("berta")
        with self.tasks.database_down():
            self.tasks.advance_retries(times=None)
        self.tasks.relay()

        self.tasks.assert_dead(self.register)

    def test_delay_on_commit_sends_at_the_commit(self):
        with transaction.atomic():
            self.register.delay_on_commit("anna")
            self.tasks.assert_not_sent(self.register)

        self.tasks.assert_sent(self.register, ["anna"])


def test_a_set_up_that_forgets_the_mixin_is_told_what_it_misses():
    class Forgetful(TaskkitTestMixin, SimpleTestCase):
        def setUp(self):
            pass

        def runTest(self):
            with pytest.raises(AttributeError, match=r"call super\(\).setUp\(\)"):
                self.tasks.run()

    Forgetful().debug()
