"""Django settings of what test_health.py starts; the signs of life go to a folder of the test's own."""

import os

from letters_settings import *  # noqa: F403

TASKKIT = {"HEALTH_DIR": os.environ["TASKKIT_TEST_HEALTH_DIR"]}
