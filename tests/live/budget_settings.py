"""Django settings of the workers in test_retry_budget.py: what they share is in the Redis that the test names."""

import os

from letters_settings import *  # noqa: F403
from letters_settings import TASKKIT

TASKKIT = {**TASKKIT, "SHARED_STORE": os.environ.get("TASKKIT_TEST_STORE", "default")}
