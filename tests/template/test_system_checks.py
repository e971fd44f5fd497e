"""What the checks of settings say of a generated project."""

import json

import pytest

pytestmark = pytest.mark.template

ASK = """
import json, django
django.setup()
from django_taskkit.checks import all_messages
print(json.dumps({str(deploy): sorted({message.id for message in all_messages(deploy=deploy)}) for deploy in (0, 1)}))
"""

BROKERS = ("filesystem://", "redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//")


@pytest.mark.parametrize("broker", BROKERS)
def test_the_checks_have_nothing_to_say(shop, tmp_path, broker):
    said = shop.run(
        "-c", ASK, DJANGO_SETTINGS_MODULE="config.settings", BROKER_URL=broker, SECRET_KEY="x", VAR_DIR=str(tmp_path)
    )

    assert json.loads(said.strip().splitlines()[-1]) == {"0": [], "1": []}
