"""The admin as an operator uses it: find, read, confirm, put back."""

import json
from datetime import datetime, timedelta, timezone

import pytest
from celery import current_app
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.urls import reverse
from kombu import Queue

from django_taskkit.admin import transitions
from django_taskkit.dlq.privacy import HIDDEN
from django_taskkit.models import DeadLetter, DeadLetterEvent

pytestmark = pytest.mark.django_db

LIST = "/admin/django_taskkit/deadletter/"
NOW = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)


def letter(number=1, **values):
    args, kwargs = values.pop("args", [number]), values.pop("kwargs", {})
    headers = {
        "id": f"id-{number}",
        "task": "shop.pay",
        "retries": 2,
        "argsrepr": "(secret)",
        **values.pop("headers", {}),
    }
    row = DeadLetter.objects.create(
        **{
            "task_id": f"id-{number}",
            "task_name": "shop.pay",
            "reason": "exception",
            "exception_class": "shop.errors.Refused",
            "exception_message": "card refused",
            "traceback": "Traceback (most recent call last):\n  ...\nshop.errors.Refused: card refused",
            "queue": current_app.conf.task_default_queue,
            "attempts": 3,
            "died_at": NOW - timedelta(minutes=number),
            "body": json.dumps([args, kwargs, {}]).encode(),
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "headers": headers,
            "properties": {"priority": 0},
            **values,
        }
    )
    DeadLetterEvent.objects.create(dead_letter=row, kind="died", at=row.died_at, note="Refused: card refused")
    return row


def user_with(*permissions):
    user = get_user_model().objects.create_user("ann", password="x", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(codename__in=permissions, content_type__app_label="django_taskkit")
    )
    return user


class Recording:
    """A publisher that notes how deep in transactions it is called."""

    def __init__(self, depths):
        self.depths = depths

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass

    def connect(self):
        pass

    def publish(self, *args):
        self.depths.append(len(connection.savepoint_ids) + 1)


@pytest.fixture
def operator(client):
    user = user_with("view_deadletter", "requeue_deadletter", "discard_deadletter")
    client.force_login(user)
    return user


@pytest.fixture(autouse=True)
def _app(station):
    @station.app.task(name="shop.pay")
    def pay(order, password=None, **more): ...


def page(response):
    return response.content.decode()


def told(response):
    return [str(message) for message in response.context["messages"]]


def act(client, action, rows, **more):
    data = {"action": action, "_selected_action": [row.pk for row in rows], "index": 0, **more}
    return client.post(LIST, data, follow=True)


class TestList:
    def test_it_shows_what_died_why_and_how_often(self, client, operator):
        letter()

        text = page(client.get(LIST))

        for shown in ("shop.pay", "id-1", "Refused: card refused", "dead", "exception", "<time datetime="):
            assert shown in text

    def test_it_is_filtered_and_searched(self, client, operator):
        letter(1, reason="time_limit")
        letter(2, exception_message="no such order")

        assert "id-2" not in page(client.get(LIST, {"reason__exact": "time_limit"}))
        assert "id-1" not in page(client.get(LIST, {"q": "no such order"}))
        assert "id-1" in page(client.get(LIST, {"q": "id-1"}))
        assert "id-1" in page(client.get(LIST, {"died_at__year": "2026"}))

    def test_what_was_revoked_on_purpose_is_hidden_until_it_is_asked_for(self, client, operator):
        letter(1, reason="revoked")

        assert "id-1" not in page(client.get(LIST))
        for asked_for in ({"revoked": "shown"}, {"reason__exact": "revoked"}, {"q": "id-1"}):
            assert "id-1" in page(client.get(LIST, asked_for))

    def test_its_filters_offer_only_what_something_gives(self, client, operator):
        letter(1)

        text = page(client.get(LIST))

        assert "reason__exact=time_limit" in text
        assert "status__exact=dead" in text
        for nothing_gives in ("status__exact=held", "reason__exact=permanent", "reason__exact=deadline"):
            assert nothing_gives not in text

    def test_it_reads_no_bodies_and_asks_a_fixed_number_of_queries(
        self, client, operator, django_assert_max_num_queries
    ):
        for number in range(30):
            letter(number)

        with django_assert_max_num_queries(20) as queries:
            client.get(LIST)

        assert not any('"body"' in query["sql"] or "`body`" in query["sql"] for query in queries.captured_queries)

    def test_it_works_without_time_zones_in_the_database(self, client, operator, monkeypatch):
        """As on a MariaDB whose time zone tables were never loaded, where truncating a date gives NULL."""
        letter()
        monkeypatch.setattr(connection.features, "has_zoneinfo_database", False)

        response = client.get(LIST)

        assert "id-1" in page(response)
        assert response.context["cl"].date_hierarchy is None

    def test_it_is_part_of_no_transaction_under_atomic_requests(self, client, operator, station, monkeypatch):
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
        depths = []
        monkeypatch.setattr(transitions.transitions, "Publisher", lambda app: Recording(depths))

        act(client, "requeue_selected", [letter(1), letter(2)], confirmed=1)

        # The test's own transaction and the one that claims the row, but none of the request's.
        assert depths == [2, 2]

    def test_it_is_closed_to_those_who_may_not_look(self, client):
        client.force_login(user_with())

        assert client.get(LIST).status_code == 403


class TestDetail:
    def url(self, row):
        return f"{LIST}{row.pk}/change/"

    def test_it_shows_traceback_arguments_message_and_history(self, client, operator):
        row = letter(kwargs={"note": "giao nhanh"})

        text = page(client.get(self.url(row)))

        for shown in (
            "shop.errors.Refused: card refused",
            "order",
            "giao nhanh",
            "priority",
            "died",
            "Requeue",
            "Discard",
        ):
            assert shown in text

    def test_that_the_body_ran_is_said_only_where_it_did(self, client, operator):
        said = "requeueing it does its work once more"

        assert said not in page(client.get(self.url(letter(1))))
        assert said in page(client.get(self.url(letter(2, body_ran=True))))

    def test_secrets_are_hidden_by_name_also_nested_and_positional(self, client, operator):
        row = letter(args=[7, "hunter2"], kwargs={"card": {"card_number": "4111"}}, headers={"api-key": "abc123"})

        text = page(client.get(self.url(row)))

        for hidden in ("hunter2", "4111", "abc123", "(secret)"):
            assert hidden not in text
        assert HIDDEN in text

    def test_text_from_workers_is_escaped(self, client, operator):
        evil = "<script>alert(1)</script>"
        row = letter(
            task_name=evil, task_id=evil, exception_message=evil, exception_class=evil, traceback=evil, queue=evil,
            worker=evil, kwargs={evil: evil}, headers={evil: evil}, routing_key=evil,
        )  # fmt: skip
        row.events.update(note=evil)

        for response in (client.get(LIST), client.get(self.url(row)), client.get(f"{LIST}{row.pk}/requeue/")):
            assert evil not in page(response)
            assert "&lt;script&gt;" in page(response)

    def test_a_pickled_body_is_not_opened(self, client, operator):
        row = letter(content_type="application/x-python-serialize")

        assert "is not decoded for display" in page(client.get(self.url(row)))

    def test_nothing_can_be_changed_added_or_deleted(self, client, admin_user):
        client.force_login(admin_user)
        row = letter()

        assert "_save" not in page(client.get(self.url(row)))
        assert client.post(self.url(row), {"task_name": "x"}).status_code == 403
        assert client.get(f"{LIST}add/").status_code == 403
        assert client.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 403

    def test_buttons_are_only_for_those_who_may_and_where_they_make_sense(self, client):
        client.force_login(user_with("view_deadletter", "discard_deadletter"))

        assert "../requeue/" not in page(client.get(self.url(letter(1))))
        assert "../discard/" not in page(client.get(self.url(letter(2, status="recovered"))))


class TestConfirmation:
    def test_it_says_how_many_and_changes_nothing(self, client, operator):
        rows = [letter(1), letter(2), letter(3, status="recovered")]

        text = page(act(client, "requeue_selected", rows))

        assert "Requeue 2 dead letters?" in text
        assert "1 more selected dead letter is in another status and stays as it is." in text
        assert DeadLetter.objects.filter(status="dead").count() == 2

    def test_it_repeats_the_selection_for_everything_that_matches(self, client, operator):
        rows = [letter(number) for number in range(3)]

        text = page(act(client, "requeue_selected", rows[:1], select_across=1))

        assert "Requeue 3 dead letters?" in text
        assert 'name="select_across" value="1"' in text

    def test_with_nothing_to_do_it_offers_nothing(self, client, operator):
        text = page(act(client, "discard_selected", [letter(status="recovered")]))

        assert "None of the selected dead letters is in a status that allows this." in text
        assert 'name="confirmed"' not in text


class TestRequeue:
    def test_a_selection_is_requeued_reported_and_logged(self, client, operator, station):
        rows = [letter(1), letter(2)]

        response = act(client, "requeue_selected", rows, confirmed=1)

        assert told(response) == ["2 dead letters were requeued."]
        assert station.waiting() == 2
        assert {row.status for row in DeadLetter.objects.all()} == {"requeued"}
        assert {event.by for event in DeadLetterEvent.objects.filter(kind="requeued")} == {"ann"}
        assert LogEntry.objects.filter(user=operator, change_message="Requeue").count() == 2

    def test_everything_that_matches_is_what_was_there_at_the_confirmation(
        self, client, operator, station, monkeypatch
    ):
        monkeypatch.setattr(transitions.transitions, "CHUNK", 2)
        rows = [letter(number) for number in range(5)]
        letter(8, reason="time_limit")
        letter(9, died_at=NOW + timedelta(minutes=1))

        response = client.post(
            f"{LIST}?reason__exact=exception",
            {
                "action": "requeue_selected", "select_across": 1, "index": 0, "_selected_action": rows[0].pk,
                "confirmed": 1, "until": NOW.isoformat(),
            },
            follow=True,
        )  # fmt: skip

        assert told(response) == ["5 dead letters were requeued."]
        assert station.waiting() == 5

    def test_another_queue_and_a_delay_can_be_given(self, client, operator, station):
        station.app.amqp.queues.add(Queue("slow"))
        act(client, "requeue_selected", [letter()], confirmed=1, queue=" slow ", countdown=60)

        station.queue = "slow"
        assert station.take().headers["eta"] is not None

    @pytest.mark.parametrize("route", [{"queue": "fast"}, "fast", {"queue": Queue("fast")}])
    def test_a_queue_that_a_route_leads_to_can_be_given(self, client, operator, station, route):
        station.app.conf.task_routes = {"shop.*": route}

        assert told(act(client, "requeue_selected", [letter()], confirmed=1, queue="fast"))

    def test_a_queue_that_a_dead_letter_came_from_can_be_given(self, client, operator, station):
        letter(2, queue="legacy")

        assert told(act(client, "requeue_selected", [letter()], confirmed=1, queue="legacy"))

    def test_a_mistyped_queue_is_asked_for_again(self, client, operator, station):
        text = page(act(client, "requeue_selected", [letter()], confirmed=1, queue="sloow"))

        assert f"No queue of this name is known here; known are: {station.queue}." in text
        assert DeadLetter.objects.get().status == "dead"

    @pytest.mark.parametrize(
        ("delay", "said"), [("-5", "greater than or equal to 0"), ("9" * 20, "less than or equal")]
    )
    def test_a_delay_that_is_none_is_asked_for_again(self, client, operator, station, delay, said):
        text = page(act(client, "requeue_selected", [letter()], confirmed=1, countdown=delay))

        assert said in text
        assert 'name="action" value="requeue_selected"' in text
        assert station.waiting() == 0

    def test_one_is_requeued_from_its_own_page(self, client, operator, station):
        row = letter()
        url = f"{LIST}{row.pk}/requeue/"

        assert "Requeue 1 dead letter?" in page(client.get(url))
        response = client.post(url, {"confirmed": 1}, follow=True)

        assert response.redirect_chain[-1][0] == f"{LIST}{row.pk}/change/"
        assert told(response) == ["1 dead letter was requeued."]
        assert station.take().headers["id"] == "id-1"

    def test_a_letter_whose_message_is_lost_can_be_helped_from_its_own_page(self, client, operator, station):
        row = letter(status="requeued", requeue_count=1)
        url = f"{LIST}{row.pk}/requeue/"

        assert "../requeue/" in page(client.get(f"{LIST}{row.pk}/change/"))
        assert "the task will run nevertheless" in page(client.get(url))
        client.post(url, {"confirmed": 1})

        row.refresh_from_db()
        assert (row.status, row.requeue_count) == ("requeued", 2)
        assert station.take().headers["taskkit_generation"] == 2

    def test_cancel_leads_back_to_where_one_came_from(self, client, operator):
        row = letter()

        assert f'href="{LIST}{row.pk}/change/"' in page(client.get(f"{LIST}{row.pk}/requeue/"))
        response = client.post(
            f"{LIST}?q=x", {"action": "requeue_selected", "_selected_action": row.pk, "select_across": 1}
        )
        assert f'href="{LIST}?q=x"' in page(response)

    def test_with_the_broker_down_the_operator_is_told(self, client, operator, station):
        rows = [letter(number) for number in range(3)]
        station.app.conf.broker_url = station.app.conf.broker_write_url = "redis://127.0.0.1:1/0"

        response = act(client, "requeue_selected", rows, confirmed=1)

        first, rest = told(response)
        assert first.startswith("Nothing was done with shop.pay[id-0] (dead): the broker can't be reached")
        assert rest == "2 more dead letters were left as they are."
        assert {row.status for row in DeadLetter.objects.all()} == {"dead"}
        assert not LogEntry.objects.exists()


class TestDiscard:
    def test_a_selection_is_discarded_with_a_note(self, client, operator):
        row = letter()

        response = act(client, "discard_selected", [row], confirmed=1, note="refunded by hand")

        assert told(response) == ["1 dead letter was discarded."]
        row.refresh_from_db()
        assert row.status == "discarded"
        assert row.events.get(kind="discarded").note == "refunded by hand"
        assert LogEntry.objects.get().change_message == "Discard"


class TestPermissions:
    @pytest.mark.parametrize("verb", ["requeue", "discard"])
    def test_an_action_needs_its_permission(self, client, verb, station):
        client.force_login(user_with("view_deadletter"))
        row = letter()

        assert f"{verb}_selected" not in page(client.get(LIST))
        act(client, f"{verb}_selected", [row], confirmed=1)
        assert client.get(f"{LIST}{row.pk}/{verb}/").status_code == 403
        assert client.post(f"{LIST}{row.pk}/{verb}/", {"confirmed": 1}).status_code == 403

        row.refresh_from_db()
        assert row.status == "dead"
        assert station.waiting() == 0

    @pytest.mark.parametrize("verb", ["requeue", "discard"])
    def test_an_action_needs_the_permission_to_look_as_well(self, client, verb):
        client.force_login(user_with(f"{verb}_deadletter"))
        row = letter()

        assert client.post(f"{LIST}{row.pk}/{verb}/", {"confirmed": 1}).status_code == 403

    def test_looking_changes_nothing(self, client, operator):
        row = letter()

        client.get(f"{LIST}{row.pk}/requeue/", {"confirmed": 1})

        row.refresh_from_db()
        assert row.status == "dead"

    def test_a_dead_letter_that_is_not_there_is_not_found(self, client, operator):
        assert client.get(f"{LIST}999/requeue/").status_code == 404


def test_the_pages_have_names():
    assert reverse("admin:django_taskkit_deadletter_requeue", args=[1]) == f"{LIST}1/requeue/"


class TestTasksThatRan:
    """Only what follows them was lost, so a requeue repeats their work."""

    def test_a_bulk_requeue_says_how_many_and_leaves_them_alone(self, client, operator, station):
        rows = [letter(1, reason="result_lost", body_ran=True), letter(2)]

        text = page(act(client, "requeue_selected", rows))
        response = act(client, "requeue_selected", rows, confirmed=1)

        assert "The task of 1 of them had ended well" in text
        assert 'name="even_if_ran"' in text
        assert told(response) == ["1 dead letter was requeued.", REFUSED_RUN]
        assert [DeadLetter.objects.get(pk=row.pk).status for row in rows] == ["dead", "requeued"]

    def test_they_are_requeued_when_the_operator_says_so(self, client, operator, station):
        row = letter(1, reason="result_lost", body_ran=True)

        act(client, "requeue_selected", [row], confirmed=1, even_if_ran="on")

        row.refresh_from_db()
        assert row.status == "requeued"

    def test_nobody_is_asked_where_none_has_run(self, client, operator):
        assert "even_if_ran" not in page(act(client, "requeue_selected", [letter()]))


REFUSED_RUN = "Nothing was done with shop.pay[id-1] (dead): its task had ended well, and would do its work once more"
