"""Django settings of the processes in test_doctor.py; ``TASKKIT_TEST_DOCTOR`` has more of them, as JSON."""

import json
import os

from letters_settings import *  # noqa: F403

DEBUG = False
TASKKIT = {"RELEASE": "one"}
globals().update(json.loads(os.environ.get("TASKKIT_TEST_DOCTOR", "{}")))
