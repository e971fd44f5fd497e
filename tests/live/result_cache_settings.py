"""Django settings of the processes in test_result_cache*.py: on the caches of the test, with its TASKKIT."""

import json
import os

from chords_settings import *  # noqa: F403
from spool_settings import TASKKIT, TASKKIT_VARIABLE  # noqa: F401

CACHES_VARIABLE = "TASKKIT_TEST_CACHES"

CACHES = json.loads(os.environ.get(CACHES_VARIABLE, "{}")) or {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
}
