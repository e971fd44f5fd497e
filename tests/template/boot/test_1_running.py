"""A project that was just started: every process answers, and says what it does in JSON."""

import json

from tests.template.boot.booted import LANES


def test_every_process_is_well(site):
    assert {name for name, process in site.processes.items() if process.probe} == {
        *(f"worker-{lane}" for lane in LANES),
        *("beat", "relay"),
    }
    for process in site.processes.values():
        assert process.runs, process.tail()
        if process.probe:
            assert process.health().returncode == 0
            assert process.health("--alive").returncode == 0


def test_the_web_answers_probes_and_sends_all_others_to_https(site):
    assert site.get("/healthz")[0] == 200
    status, said = site.get("/readyz")
    assert (status, json.loads(said)["parts"]) == (200, dict.fromkeys(("database", "migrations", "broker"), "ok"))
    assert site.get("/readyz?without=broker")[0] == 200
    assert site.get("/healthz", Host="elsewhere.example")[0] == 400


def test_django_has_nothing_to_say_about_this_deployment(site):
    as_it_is = {"DJANGO_SETTINGS_MODULE": "config.settings.production"}

    assert "no issues" in site.manage("check", "--deploy", "--fail-level", "WARNING", **as_it_is)


def test_the_doctor_finds_the_project_well(site):
    said = site.manage("taskkit", "doctor")

    assert "error" not in said.lower(), said
