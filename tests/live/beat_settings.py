"""Django settings of the beats in test_beat.py."""

import json
import os

from letters_settings import *  # noqa: F403
from letters_settings import INSTALLED_APPS as APPS

INSTALLED_APPS = [*APPS, *json.loads(os.environ.get("TASKKIT_TEST_APPS", "[]"))]
TASKKIT = json.loads(os.environ.get("TASKKIT_TEST_BEAT_SETTINGS", "{}"))
