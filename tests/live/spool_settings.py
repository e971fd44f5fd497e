"""Django settings of the workers in test_spool.py: those of test_letters.py, with a TASKKIT of the test's own."""

import json
import os

from letters_settings import *  # noqa: F403

TASKKIT_VARIABLE = "TASKKIT_TEST_TASKKIT"

TASKKIT = json.loads(os.environ.get(TASKKIT_VARIABLE, "{}"))
