"""The admin as an operator uses it: find, read, confirm, put back."""

import json
from datetime import datetime, timedelta
from datetime import timezone as utc_zone

import pytest
from celery import current_app
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.urls import reverse
from django.utils import timezone
from kombu import Queue

from django_taskkit.admin import transitions
from django_taskkit.dlq import census
from django_taskkit.dlq.bulk.publish import BulkPublisher
from django_taskkit.dlq.models import Reason, Status
from django_taskkit.dlq.privacy import HIDDEN
from django_taskkit.models import DeadLetter, DeadLetterEvent

pytestmark = pytest.mark.django_db

LIST = "/admin/django_taskkit/deadletter/"
NOW = datetime(2026, 11, 21, 12, tzinfo=utc_zone.utc)


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


class Recording(BulkPublisher):
    """A publisher that notes how deep in transactions it is called."""

    def __init__(self, app, depths):
        super().__init__(app)
        self.depths = depths

    def publish_many(self, *args, **options):
        self.depths.append(len(connection.savepoint_ids) + 1)
        return super().publish_many(*args, **options)


@pytest.fixture
def operator(client):
    user = user_with("view_deadletter", "requeue_deadletter", "discard_deadletter")
    client.force_login(user)
    return user


@pytest.fixture(autouse=True)
def _app(station, monkeypatch):
    monkeypatch.setattr(census, "ANSWER_TIMEOUT", 0.01)  # there are no workers that could answer

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

    def test_its_filters_offer_every_status_and_reason(self, client, operator):
        letter(1)

        text = page(client.get(LIST))

        assert [value for value in Reason.values if f"reason__exact={value}" not in text] == []
        assert [value for value in Status.values if f"status__exact={value}" not in text] == []

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
        monkeypatch.setattr(transitions.transitions, "BulkPublisher", lambda app: Recording(app, depths))

        act(client, "requeue_selected", [letter(1), letter(2)], confirmed=1)

        # The test's own transaction and the one that claims the row, but none of the request's.
        assert depths == [2]

    def test_neither_is_the_page_of_one_letter(self, client, operator, station, monkeypatch):
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
        depths = []
        monkeypatch.setattr(transitions.transitions, "BulkPublisher", lambda app: Recording(app, depths))

        client.post(f"{LIST}{letter().pk}/requeue/", {"confirmed": 1})

        assert depths == [2]

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


class TestPreflight:
    """What would fail again is told, and left out unless the operator says otherwise."""

    def rows(self):
        return [letter(1), letter(2, args=[]), letter(3, task_name="shop.gone", headers={"task": "shop.gone"})]

    def test_the_question_comes_with_counts_and_reasons(self, client, operator):
        text = page(act(client, "requeue_selected", [*self.rows(), letter(4)]))

        assert "Requeue 4 dead letters?" in text
        assert '<span class="taskkit-color taskkit-red">red</span> 2' in text
        assert '<span class="taskkit-color taskkit-amber">amber</span> 2' in text
        assert "4 &times; No worker answered, so nobody may be there to run it." in text
        assert (
            "1 &times; The arguments don&#x27;t fit the task: missing a required argument: &#x27;order&#x27;." in text
        )
        assert 'name="despite_preflight"' in text

    def test_where_none_is_red_nobody_is_asked(self, client, operator):
        assert "despite_preflight" not in page(act(client, "requeue_selected", [letter()]))

    def test_red_ones_are_left_out(self, client, operator, station):
        response = act(client, "requeue_selected", self.rows(), confirmed=1)

        assert told(response) == [
            "1 dead letter was requeued.",
            "2 dead letters were left out, since they would fail again.",
        ]
        assert list(DeadLetter.objects.order_by("task_id").values_list("status", flat=True)) == [
            "requeued",
            "dead",
            "dead",
        ]
        assert LogEntry.objects.count() == 1

    def test_they_are_requeued_when_the_operator_says_so(self, client, operator, station):
        response = act(client, "requeue_selected", self.rows(), confirmed=1, despite_preflight="on")

        assert told(response) == ["3 dead letters were requeued."]

    def test_a_single_one_as_well(self, client, operator, station):
        row = letter(args=[])
        url = f"{LIST}{row.pk}/requeue/"

        assert "missing a required argument" in page(client.get(url))
        left_out = client.post(url, {"confirmed": 1}, follow=True)
        sent = client.post(url, {"confirmed": 1, "despite_preflight": "on"}, follow=True)

        assert told(left_out) == ["1 dead letter was left out, since it would fail again."]
        assert told(sent) == ["1 dead letter was requeued."]

    def test_of_very_many_it_says_how_many_were_looked_at(self, client, operator, station, monkeypatch):
        monkeypatch.setattr(transitions, "LOOKED_AT", 2)
        rows = [letter(1), letter(2), letter(3, args=[])]

        text = page(act(client, "requeue_selected", rows))
        response = act(client, "requeue_selected", rows, confirmed=1)

        assert "Only the first 2 were looked at; each is looked at when it is requeued." in text
        assert 'name="despite_preflight"' in text
        assert told(response)[1] == "1 dead letter was left out, since it would fail again."

    def test_the_page_of_a_letter_says_it_without_asking_anyone(self, client, operator, station):
        station.app.conf.broker_url = station.app.conf.broker_write_url = "redis://127.0.0.1:1/0"

        def shown(row):
            return page(client.get(f"{LIST}{row.pk}/change/"))

        assert "Nothing in the message speaks against a requeue." in shown(letter(1))
        assert "missing a required argument" in shown(letter(2, args=[]))
        assert "Preflight" not in shown(letter(3, status="recovered"))

    def test_where_no_app_of_the_project_is_loaded_nothing_is_said_of_its_tasks(self, client, operator, no_app):
        text = page(client.get(f"{LIST}{letter().pk}/change/"))

        assert "id-1" in text
        assert "No task is registered" not in text

    def test_its_findings_are_escaped(self, client, operator):
        evil = "<script>alert(1)</script>"
        row = letter(kwargs={"order": 2, evil: 1}, headers={"task": "shop.pay"})

        for url in (f"{LIST}{row.pk}/change/", f"{LIST}{row.pk}/requeue/"):
            assert evil not in page(client.get(url))

    def test_it_reads_many_letters_in_few_queries(self, client, operator, django_assert_max_num_queries):
        rows = [letter(number) for number in range(60)]

        with django_assert_max_num_queries(25):
            act(client, "requeue_selected", rows)


class TestWhen:
    def test_they_can_wait_for_a_time(self, client, operator, station, settings):
        settings.TIME_ZONE = "Asia/Ho_Chi_Minh"
        row = letter()
        moment = timezone.localtime() + timedelta(days=1)

        assert "Or a time (Asia/Ho_Chi_Minh) from which on they may run." in page(
            client.get(f"{LIST}{row.pk}/requeue/")
        )
        act(client, "requeue_selected", [row], confirmed=1, not_before=f"{moment:%Y-%m-%dT%H:%M}")

        eta = datetime.fromisoformat(station.take().headers["eta"])
        assert eta == moment.replace(second=0, microsecond=0)

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"not_before": "2020-01-01T00:00"}, "Give a time in the future, at most a year from now."),
            ({"not_before": "2999-01-01T00:00"}, "Give a time in the future, at most a year from now."),
            ({"not_before": "soon"}, "Enter a valid date/time."),
            ({"countdown": 5, "not_before": "tomorrow"}, "Enter a valid date/time."),
        ],
    )
    def test_a_time_that_makes_no_sense_is_asked_for_again(self, client, operator, station, given, said):
        assert said in page(act(client, "requeue_selected", [letter()], confirmed=1, **given))
        assert station.waiting() == 0

    @pytest.mark.parametrize("countdown", [0, 5])
    def test_a_delay_and_a_time_are_one_too_many(self, client, operator, station, countdown):
        given = {"countdown": countdown, "not_before": f"{timezone.now() + timedelta(days=1):%Y-%m-%dT%H:%M}"}

        text = page(act(client, "requeue_selected", [letter()], confirmed=1, **given))

        assert "Give a delay or a time, not both." in text

    def test_the_state_of_the_result_can_be_reset(self, client, operator, station):
        row = letter()
        station.app.backend.store_result("id-1", ValueError("no"), "FAILURE")

        act(client, "requeue_selected", [row], confirmed=1)
        assert station.app.AsyncResult("id-1").state == "FAILURE"
        DeadLetter.objects.update(status="dead")
        act(client, "requeue_selected", [row], confirmed=1, reset_results="on")

        assert station.app.AsyncResult("id-1").state == "PENDING"


class TestHeld:
    """Their workflows wait for them."""

    def test_one_can_be_requeued(self, client, operator, station):
        row = letter(status="held")

        assert "../requeue/" in page(client.get(f"{LIST}{row.pk}/change/"))
        assert told(act(client, "requeue_selected", [row], confirmed=1)) == ["1 dead letter was requeued."]

    def test_before_one_is_discarded_the_operator_hears_what_it_means(self, client, operator):
        rows = [letter(1, status="held"), letter(2, status="held"), letter(3)]

        held = "2 of them are held: their workflows, which wait for them, fail now."
        assert held in page(act(client, "discard_selected", rows))
        assert "held" not in page(act(client, "discard_selected", rows[2:])).partition("<form")[0].partition("<h2>")[2]
