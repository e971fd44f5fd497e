import pytest
from celery import Celery

from django_taskkit.doctor.broker import broker
from django_taskkit.doctor.probes import PROBES
from django_taskkit.doctor.running import examine
from django_taskkit.doctor.site import Site


@pytest.fixture
def found(site):
    """``found(**settings)``: the one finding about the broker of an app with these settings."""

    def found(**settings):
        site.app.conf.update(settings)
        [(_probe, finding)] = examine(site, [probe for probe in PROBES if probe.look is broker])
        return finding

    return found


def test_a_broker_that_gives_a_message_back_is_fine(found):
    assert found().level.value == "ok"


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://:secret@127.0.0.1:26379;sentinel://:secret@127.0.0.1:26380",  # without a master_name
        "nonsense://:secret@127.0.0.1",
        "redis://:secret@127.0.0.1:1/zero",
    ],
)
def test_an_address_with_which_no_worker_can_start_is_an_error_without_its_password(found, url):
    finding = found(broker_url=url)

    assert finding.level.value == "error"
    assert finding.remedy
    assert "secret" not in finding.text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0: "),
        ("redis://:secret@127.0.0.1:1/0", "redis://:**@127.0.0.1:1/0: "),
        ("amqp://shop:secret@127.0.0.1:1/shop", "amqp://shop:**@127.0.0.1:1/shop: "),
    ],
)
def test_a_broker_that_is_away_is_told_in_one_sentence_with_stars_for_a_password_only(found, url, shown):
    finding = found(broker_url=url)

    assert finding.level.value == "error"
    assert finding.text.startswith(shown)
    assert finding.text.endswith(".")
    assert not finding.text.endswith("..")


def test_a_broker_in_a_folder_takes_a_message_and_gives_it_back(tmp_path):
    """Ours drops a transient message for a queue that is not there; the template has this broker."""
    with Celery("folder", broker="filesystem://", set_as_current=False, fixups=[]) as app:
        app.conf.broker_transport = "django_taskkit.transports.filesystem:Transport"
        app.conf.broker_transport_options = {"folder": str(tmp_path)}

        [found] = broker(Site(app, timeout=10))

    assert (found.level.value, found.id) == ("ok", "broker"), found.text
    assert not any(path.is_file() for path in tmp_path.rglob("*taskkit.doctor*"))
