"""What the checks of settings say of a generated project, in development and with encrypted addresses."""

import json

import pytest

pytestmark = pytest.mark.template

ASK = """
import json, django
django.setup()
from django.core.checks import run_checks
from django_taskkit.checks import all_messages
said = [*run_checks(), *(message for deploy in (False, True) for message in all_messages(deploy=deploy))]
print(json.dumps([str(message) for message in said]))
"""


@pytest.mark.parametrize(
    ("answers", "environment"),
    [
        ({}, {}),
        (
            {"broker": "redis"},
            {"BROKER_URL": "rediss://:word@127.0.0.1:1/0", "CACHE_URL": "rediss://:word@127.0.0.1:1/1"},
        ),
        (
            {"broker": "rabbitmq", "results": "redis"},
            {"BROKER_URL": "amqps://127.0.0.1:1//", "RESULT_URL": "rediss://127.0.0.1:1"},
        ),
        ({"broker": "sqs"}, {"BROKER_URL": "sqs://", "AWS_REGION": "eu-central-1"}),
    ],
    ids=lambda value: value.get("broker", "") if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("settings", ["development", "production"])
def test_the_checks_have_nothing_to_say(bake, production, tmp_path, settings, answers, environment):
    told = {**production, **environment, "DJANGO_SETTINGS_MODULE": f"config.settings.{settings}"}

    said = bake(**answers).run("-c", ASK, VAR_DIR=str(tmp_path), **told)

    assert json.loads(said.strip().splitlines()[-1]) == []
