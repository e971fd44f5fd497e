import uuid

import pytest

from django_taskkit.dlq import requeue
from django_taskkit.dlq.models import DeadLetter, Status

pytestmark = pytest.mark.django_db


def test_a_uuid_is_as_good_an_id_as_its_text(station):
    cured = []

    @station.app.task(name="tests.uuid", ignore_result=True)  # which not every backend stores under such an id
    def task():
        if not cured:
            raise ValueError("not cured")

    task_id = uuid.uuid4()
    task.apply_async(task_id=task_id)
    station.run_next()

    (letter,) = DeadLetter.objects.all()
    assert (letter.task_id, letter.reason) == (str(task_id), "exception")

    cured.append(True)
    assert requeue(letter).requeued == 1
    station.run_next()
    letter.refresh_from_db()
    assert letter.status == Status.RECOVERED
