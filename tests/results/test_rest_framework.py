"""Results in views of Django REST framework, with its own authentication and permissions."""

import pytest
from django.test import override_settings
from django.urls import path

pytest.importorskip("rest_framework")

from tests.results.web import BROWSER, a_project  # noqa: F401

REPORT = "/api/reports/2026/"


@pytest.fixture
def api(project, django_user_model, settings):
    """Views for those with the password, who have no session."""
    from rest_framework.authentication import BasicAuthentication
    from rest_framework.permissions import IsAuthenticated
    from rest_framework.views import APIView

    from django_taskkit.results.responses import state_response
    from django_taskkit.results.status import status_response

    cache = project.report()

    class Ours(APIView):
        authentication_classes = [BasicAuthentication]
        permission_classes = [IsAuthenticated]

    class Report(Ours):
        def get(self, request, year):
            return state_response(request, cache.get_or_dispatch(year=year), status_url="task", label="Report")

    class Task(Ours):
        def get(self, request, token):
            return status_response(request, token)

    project.urls.urlpatterns += [
        path("api/reports/<int:year>/", Report.as_view()),
        path("api/tasks/<str:token>/", Task.as_view(), name="task"),
    ]
    for name in ("ann", "bob"):
        django_user_model.objects.create_user(name, password="secret")
    with override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS, "rest_framework"]):
        yield project


def as_user(name):
    import base64

    return {"authorization": "Basic " + base64.b64encode(f"{name}:secret".encode()).decode()}


def test_who_is_not_logged_in_has_no_task_sent(api):
    assert api.get(REPORT).status_code == 401
    assert api.waiting() == 0


def test_a_result_is_there_when_the_task_has_run(api):
    waiting = api.get(REPORT, **as_user("ann"))
    status = api.get(waiting["Location"], **as_user("ann"))
    api.run()
    done = api.get(REPORT, **as_user("ann"))

    assert (waiting.status_code, waiting["Retry-After"]) == (202, "2")
    assert waiting["Location"].startswith("/api/tasks/")
    assert (status.status_code, status.json()["status"]) == (200, "pending")
    assert (done.status_code, done.json()["run"]) == (200, 1)
    assert api.get(REPORT, **as_user("ann"), **{"if-none-match": done["ETag"]}).status_code == 304


def test_a_token_is_good_for_its_user_alone(api):
    url = api.get(REPORT, **as_user("ann"))["Location"]

    assert api.get(url, **as_user("ann")).status_code == 200
    assert api.get(url, **as_user("bob")).status_code == 404
    assert api.get(url).status_code == 401


def test_a_browser_gets_the_page_here_too(api):
    page = api.get(REPORT, BROWSER, **as_user("ann"))
    status = api.get(page["Location"], BROWSER, **as_user("ann"))

    for answer in (page, status):
        assert answer["Content-Type"] == "text/html; charset=utf-8"
        assert "<progress" in answer.content.decode()
        assert 'hx-get="/api/tasks/' in answer.content.decode()


def test_the_package_does_without_it():
    import subprocess
    import sys

    code = (
        "import sys, django; from django.conf import settings; settings.configure(INSTALLED_APPS=['django_taskkit',"
        "'django.contrib.contenttypes', 'django.contrib.auth']); django.setup();"
        "import django_taskkit.results.urls, django_taskkit.results.views; print('rest_framework' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False"]
