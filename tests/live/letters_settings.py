"""Django settings of the workers in test_letters.py: those of the tests, on the database of the running test."""

import json
import os

from tests.settings import *  # noqa: F403

DATABASE_VARIABLE = "TASKKIT_TEST_LIVE_DATABASE"

if DATABASE_VARIABLE in os.environ:
    DATABASES = {"default": json.loads(os.environ[DATABASE_VARIABLE])}
TASKKIT = {"RELEASE": "live"}
if wrong := os.environ.get("TASKKIT_TEST_SETTING"):
    TASKKIT[wrong] = "all"
