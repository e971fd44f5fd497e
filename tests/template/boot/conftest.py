"""One project after the other is started, and all tests of this folder are played on each."""

import os
import shutil
from pathlib import Path

import pytest

from tests.browser.conftest import chromium as chromium
from tests.template.boot.booted import running
from tests.template.boot.browser import Window
from tests.template.boot.variants import VARIANTS


def pytest_collection_modifyitems(items):
    for item in items:
        if "/template/boot/" in item.path.as_posix():
            item.add_marker(pytest.mark.template)
            item.add_marker(pytest.mark.boot)


@pytest.fixture(scope="session", params=VARIANTS, ids=lambda variant: variant.name)
def site(request, bake, tmp_path_factory):
    """The project, in production. TASKKIT_TEST_SCREENSHOTS: where its logs and screenshots are kept."""
    kept = os.environ.get("TASKKIT_TEST_SCREENSHOTS")
    folder = Path(kept) / f"boot-{request.param.name}" if kept else tmp_path_factory.mktemp(request.param.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with running(request.param, bake, folder) as site:
        yield site


@pytest.fixture(autouse=True)
def all_run(site):
    yield
    site.start_what_is_down()


@pytest.fixture
def window(site, chromium):
    """A browser window in which the owner of the shop is logged in."""
    window = Window(chromium, site)
    yield window
    window.close()
    assert window.complaints == []


@pytest.fixture
def hold_mail(site):
    """From here on every mail stays in the midst of its delivery, until the test lets it go."""
    yield site.mail.valve
    site.mail.valve.open()


@pytest.fixture
def hold_places(site):
    """From here on every question for a place stays unanswered."""
    yield site.geocoder.valve
    site.geocoder.valve.open()
