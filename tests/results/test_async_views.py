"""The view of a ResultCache as an async view."""

import threading

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.db import connection
from django.test import AsyncClient

from django_taskkit.results.views import atask_view
from tests.results.web import BROWSER, a_live_project  # noqa: F401

REPORT = "/reports/2026/"


@pytest.fixture
def project(live_project):
    return live_project


@async_to_sync
async def get(url, accept="application/json", client=None, **headers):
    return await (client or AsyncClient()).get(url, headers={"accept": accept, **headers})


def test_it_is_an_async_view(project):
    assert iscoroutinefunction(atask_view(project.report()))


def test_it_answers_as_the_other_one_does(project):
    project.serve("reports/<int:year>/", atask_view(project.report(), label="Sales report"))
    waiting, page = get(REPORT), get(REPORT, BROWSER)
    project.run()
    done = get(REPORT)
    same = get(REPORT, **{"if-none-match": done["ETag"]})

    assert (waiting.status_code, waiting["Retry-After"], waiting["Cache-Control"]) == (202, "2", "no-store")
    assert waiting["Location"].startswith("/tasks/")
    assert "<progress" in page.content.decode()
    assert (done.status_code, done.json()["run"]) == (200, 1)
    assert done["Cache-Control"].startswith("private, max-age=")
    assert same.status_code == 304


def test_it_works_under_wsgi_too(project):
    project.serve("reports/<int:year>/", atask_view(project.report()))

    assert project.get(REPORT).status_code == 202


def test_hooks_may_be_async_or_ask_the_database(project, django_user_model):
    threads = []

    async def arguments(request, year):
        threads.append(threading.current_thread())
        return {"year": year, "month": int(request.GET.get("month", 1))}

    def authorize(request, arguments):
        return request.user.username == "ann"

    project.serve("reports/<int:year>/", atask_view(project.report(), arguments=arguments, authorize=authorize))
    client = AsyncClient()

    assert get(REPORT, client=client).status_code == 403
    async_to_sync(client.aforce_login)(django_user_model.objects.create_user("ann"))
    assert get(REPORT, client=client).status_code == 202
    assert get(f"{REPORT}?month=May", client=client).status_code == 400


def test_a_token_is_made_for_who_is_logged_in(project, django_user_model):
    project.serve("reports/<int:year>/", atask_view(project.report()))
    client = AsyncClient()
    async_to_sync(client.aforce_login)(django_user_model.objects.create_user("ann"))
    status = get(REPORT, client=client)["Location"]

    assert get(status, client=client).status_code == 200
    assert get(status).status_code == 404


@pytest.mark.parametrize(
    ("accept", "query", "code"), [("image/png", "?year=2026", 406), ("*/*", "?year=2026&colour=red", 400)]
)
def test_what_a_client_sends_is_never_an_error_of_the_server(project, accept, query, code):
    project.serve("reports/", atask_view(project.report(), arguments=lambda request: request.GET.dict()))

    assert get(f"/reports/{query}", accept).status_code == code
    assert project.waiting() == 0


def test_a_result_can_only_be_read(project):
    project.serve("reports/<int:year>/", atask_view(project.report()))
    response = async_to_sync(AsyncClient().post)(REPORT)

    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")


def test_a_database_with_a_transaction_for_each_request_is_no_hindrance(project, monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    project.serve("reports/<int:year>/", atask_view(project.report()))

    assert get(REPORT).status_code == 202
