"""The Celery app of the unit tests: messages and results stay in this process."""

from celery import Celery

CONFIG = {
    "broker_url": "memory://",
    "result_backend": "cache+memory://",
}

# Without Celery's Django fixup, which would put the working directory before the installed package under test;
# the one thing that these tests need from it is its task class.
app = Celery("tests", fixups=[], task_cls="celery.contrib.django.task:DjangoTask", set_as_current=False)
app.config_from_object(CONFIG)
app.set_default()
