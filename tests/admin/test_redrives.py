"""Redrives in the admin: made from the list of dead letters, watched, paused, resumed, cancelled."""

import json
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_taskkit.dlq.redrive.creation import create_redrive
from django_taskkit.dlq.redrive.outcomes import Outcomes
from django_taskkit.dlq.redrive.runner import Runner
from django_taskkit.models import DeadLetter, Redrive, RedriveMember, RelayHeartbeat
from django_taskkit.outbox.presence import watch

pytestmark = pytest.mark.django_db

LETTERS = "/admin/django_taskkit/deadletter/"
LIST = "/admin/django_taskkit/redrive/"


@pytest.fixture(autouse=True)
def _app(station, monkeypatch):
    from django_taskkit.dlq import census

    monkeypatch.setattr(census, "ANSWER_TIMEOUT", 0.01)  # no worker is there to answer
    watch.forget()

    @station.app.task(name="shop.pay")
    def pay(number): ...

    yield
    watch.forget()


@pytest.fixture
def letters(station):
    def letters(count, **values):
        rows = []
        for _ in range(count):
            number = DeadLetter.objects.count()
            task = values.get("task_name", "shop.pay")
            rows.append(
                DeadLetter.objects.create(
                    **{
                        "task_id": f"id-{number}",
                        "task_name": task,
                        "reason": "exception",
                        "exception_class": "ValueError",
                        "queue": station.queue,
                        "died_at": timezone.now() - timedelta(minutes=1),
                        "body": json.dumps([[number], {}, {}]).encode(),
                        "content_type": "application/json",
                        "content_encoding": "utf-8",
                        "headers": {"id": f"id-{number}", "task": task},
                        **values,
                    }
                )
            )
        return rows

    return letters


def user_with(*permissions):
    user = get_user_model().objects.create_user("ann", password="x", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(codename__in=permissions, content_type__app_label="django_taskkit")
    )
    return user


@pytest.fixture
def operator(client):
    user = user_with("view_deadletter", "requeue_deadletter")
    client.force_login(user)
    return user


@pytest.fixture
def run(station):
    return lambda redrive, limit=500: Runner(redrive.pk, station.app, "test", ask=False).step(limit)


def page(response):
    return response.content.decode()


def told(response):
    return [str(message) for message in response.context["messages"]]


def act(client, rows, url=LETTERS, action="redrive_selected", **more):
    data = {"action": action, "_selected_action": [row.pk for row in rows], "index": 0, **more}
    return client.post(url, data, follow=True)


class TestMaking:
    def test_it_asks_first_with_the_count_and_what_preflight_finds(self, client, operator, letters):
        rows = [*letters(2), *letters(1, task_name="shop.gone")]

        text = page(act(client, rows))

        assert "Redrive 3 dead letters?" in text
        assert "No task is registered under the name shop.gone." in text
        for field in ("rate", "canary", "queue", "not_before", "reset_results", "despite_preflight"):
            assert f'name="{field}"' in text
        assert 'name="countdown"' not in text
        assert not Redrive.objects.exists()

    def test_it_makes_a_redrive_of_what_was_selected_and_shows_it(self, client, operator, letters):
        rows = letters(3)

        response = act(client, rows[:2], confirmed="1", rate="12.5", canary="on", reset_results="on")

        made = Redrive.objects.get()
        assert (made.total, made.rate, made.canary, made.reset_results) == (2, 12.5, True, True)
        assert (made.created_by, made.selection, made.state) == ("ann", "admin: 2 selected", "running")
        assert response.redirect_chain[-1][0] == f"{LIST}{made.pk}/change/"
        assert "The redrive has 2 dead letters." in told(response)
        assert LogEntry.objects.get().object_repr == str(made)

    def test_it_makes_one_of_all_that_match_the_filter(self, client, operator, letters):
        rows = letters(2)
        letters(3, task_name="shop.other")

        act(client, rows[:1], url=f"{LETTERS}?task_name=shop.pay", select_across="1", confirmed="1")

        made = Redrive.objects.get()
        assert (made.total, made.selection) == (2, "admin: all with task_name=shop.pay")

    def test_what_dies_after_the_question_is_not_in_it(self, client, operator, letters):
        rows = letters(2)
        until = act(client, rows).context["until"]
        DeadLetter.objects.filter(pk=rows[0].pk).update(died_at=timezone.now())

        act(client, rows, confirmed="1", until=until)

        assert Redrive.objects.get().total == 1

    def test_what_another_redrive_has_is_left_out_and_said(self, client, operator, letters):
        rows = letters(3)
        create_redrive(DeadLetter.objects.filter(pk=rows[0].pk))

        response = act(client, rows, confirmed="1")

        assert told(response) == ["The redrive has 2 dead letters. 1 more is in another redrive and was left out."]

    @pytest.mark.parametrize(("field", "value"), [("rate", "0"), ("rate", "x"), ("queue", "nowhere")])
    def test_what_makes_no_sense_is_asked_again(self, client, operator, letters, field, value):
        text = page(act(client, letters(1), confirmed="1", **{field: value}))

        assert "errorlist" in text
        assert not Redrive.objects.exists()

    def test_it_takes_the_permission_to_requeue(self, client, letters):
        client.force_login(user_with("view_deadletter", "discard_deadletter"))
        rows = letters(1)

        assert 'value="redrive_selected"' not in page(client.get(LETTERS))
        act(client, rows, confirmed="1")
        assert not Redrive.objects.exists()


class TestWatching:
    def test_the_list_shows_state_selection_progress_rate_who_and_when(self, client, operator, letters, run):
        letters(4)
        made = create_redrive(DeadLetter.objects.all(), selection="--task <b>", by="ben", rate=2)
        run(made, 1)

        text = page(client.get(LIST))

        for shown in ("running", "--task &lt;b&gt;", '<progress class="taskkit-progress" max="4" value="1"', "ben"):
            assert shown in text
        assert "1 of 4 (25 %)" in text
        assert "2/s" in text

    def test_the_list_costs_no_query_per_redrive(self, client, operator, letters):
        def queries():
            with CaptureQueriesContext(connection) as captured:
                client.get(LIST)
            return len(captured)

        create_redrive(DeadLetter.objects.all())
        client.get(LIST)
        one = queries()
        for _ in range(5):
            create_redrive(DeadLetter.objects.all())

        assert queries() == one

    def test_the_page_shows_what_became_of_how_many(self, client, operator, letters, run, station):
        letters(3)
        letters(1, task_name="shop.<gone>")
        made = create_redrive(DeadLetter.objects.all(), by="ben")
        run(made)
        station.run_next()
        failed = RedriveMember.objects.filter(state="sent").last().dead_letter
        DeadLetter.objects.filter(pk=failed.pk).update(status="dead", exception_message="<script>")

        text = page(client.get(f"{LIST}{made.pk}/change/"))

        row = Redrive.objects.get()
        assert (row.sent, row.refused, row.recovered, row.failed_again) == (3, 1, 1, 1)
        assert "1 &times; No task is registered under the name shop.&lt;gone&gt;." in text
        assert f'href="{LETTERS}{failed.pk}/change/"' in text
        assert "&lt;script&gt;" in text
        assert "<script>no" not in text
        assert "100 %" in text

    def test_the_page_of_one_that_runs_is_loaded_again_by_itself_and_stops_on_demand(self, client, operator, letters):
        letters(1)
        made = create_redrive(DeadLetter.objects.all())
        url = f"{LIST}{made.pk}/change/"

        assert '<meta http-equiv="refresh" content="5">' in page(client.get(url))
        text = page(client.get(f"{url}?reload=off"))
        assert "http-equiv" not in text
        assert "Reload by itself" in text
        Redrive.objects.update(state="finished")
        assert "http-equiv" not in page(client.get(url))

    def test_it_says_what_to_do_if_nobody_runs_it(self, client, operator, letters):
        letters(1)
        made = create_redrive(DeadLetter.objects.all())
        url = f"{LIST}{made.pk}/change/"

        assert f"manage.py taskkit redrive --resume {made.pk}" in page(client.get(url))
        RelayHeartbeat.objects.create(name="r", started_at=timezone.now(), seen_at=timezone.now())
        watch.forget()
        assert "the relay takes it in a moment" in page(client.get(url))

    def test_one_whose_making_was_interrupted_says_so(self, client, operator):
        made = Redrive.objects.create(created_at=timezone.now())

        text = page(client.get(f"{LIST}{made.pk}/change/"))

        assert "whoever made it was interrupted" in text
        assert "../cancel/" in text
        assert "http-equiv" not in text

    def test_the_letters_that_failed_again_are_shown_to_those_who_may_see_letters(self, client, letters, run):
        letters(1)
        made = create_redrive(DeadLetter.objects.all())
        run(made)
        DeadLetter.objects.update(status="dead", exception_message="a secret of ours")
        url = f"{LIST}{made.pk}/change/"
        client.force_login(user_with("view_redrive"))

        assert "a secret of ours" not in page(client.get(url))
        assert Redrive.objects.get().failed_again == 1
        client.force_login(get_user_model().objects.create_superuser("root"))
        assert "a secret of ours" in page(client.get(url))

    def test_the_page_looks_things_up_in_no_transaction_of_the_request(
        self, client, operator, letters, run, monkeypatch
    ):
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
        depths = []
        monkeypatch.setattr(Outcomes, "settle_first", lambda self, limit: depths.append(len(connection.savepoint_ids)))
        letters(1)
        made = create_redrive(DeadLetter.objects.all())
        run(made)

        client.get(f"{LIST}{made.pk}/change/")

        assert depths == [0], "only the test's own"

    def test_the_page_is_shown_although_the_database_is_busy(self, client, operator, letters, run, monkeypatch):
        """Whatever the page would note, the relay notes as well."""

        def busy(self, limit):
            raise OperationalError("database is locked")

        monkeypatch.setattr(Outcomes, "settle_first", busy)
        letters(1)
        made = create_redrive(DeadLetter.objects.all())
        run(made)

        assert client.get(f"{LIST}{made.pk}/change/").status_code == 200

    def test_who_may_only_see_letters_sees_no_redrives(self, client):
        client.force_login(user_with("view_deadletter"))

        assert client.get(LIST).status_code == 403

    def test_who_may_see_redrives_can_change_none(self, client, letters):
        client.force_login(user_with("view_redrive"))
        letters(1)
        made = create_redrive(DeadLetter.objects.all())

        text = page(client.get(f"{LIST}{made.pk}/change/"))
        assert "../pause/" not in text
        assert client.post(f"{LIST}{made.pk}/pause/", {"confirmed": "1"}).status_code == 403
        act(client, [made], url=LIST, action="pause_selected", confirmed="1")
        assert Redrive.objects.get().state == "running"


class TestChanging:
    @pytest.fixture
    def made(self, letters, run):
        letters(4)
        made = create_redrive(DeadLetter.objects.all())
        run(made, 1)
        return made

    @pytest.mark.parametrize(
        ("verb", "before", "after"),
        [
            ("pause", "running", "paused"),
            ("resume", "paused", "running"),
            ("resume", "stopped", "running"),
            ("cancel", "stopped", "cancelled"),
        ],
    )
    def test_from_its_page_it_asks_with_the_counts_and_does_it(self, client, operator, made, verb, before, after):
        Redrive.objects.update(state=before)
        url = f"{LIST}{made.pk}/{verb}/"
        assert f"../{verb}/" in page(client.get(f"{LIST}{made.pk}/change/"))

        question = page(client.get(url))
        assert "1 of 4 sent, 3 still to be sent" in question
        assert Redrive.objects.get().state == before
        response = client.post(url, {"confirmed": "1"}, follow=True)

        assert Redrive.objects.get().state == after
        assert told(response) == ["1 redrive was changed."]
        assert LogEntry.objects.get().change_message == verb.title()

    def test_a_change_that_came_too_late_is_said(self, client, operator, made):
        Redrive.objects.update(state="finished")

        assert "None of the selected redrives" in page(client.get(f"{LIST}{made.pk}/pause/"))
        response = client.post(f"{LIST}{made.pk}/pause/", {"confirmed": "1"}, follow=True)

        assert told(response) == ["1 redrive is in a state that does not allow this."]
        assert not LogEntry.objects.exists()

    def test_several_are_changed_from_the_list(self, client, operator, made, letters):
        letters(1)
        other = create_redrive(DeadLetter.objects.all())
        done = create_redrive(DeadLetter.objects.none())
        Redrive.objects.filter(pk=done.pk).update(state="finished")

        question = act(client, [made, other, done], url=LIST, action="pause_selected")
        assert "1 more selected redrive is in another state and stays as it is." in page(question)
        act(client, [made, other, done], url=LIST, action="pause_selected", confirmed="1")

        assert sorted(Redrive.objects.values_list("state", flat=True)) == ["finished", "paused", "paused"]
        assert Redrive.objects.get(pk=made.pk).why == "Paused by ann."

    def test_one_that_is_not_there_is_not_found(self, client, operator):
        assert client.get(f"{LIST}99/pause/").status_code == 404
