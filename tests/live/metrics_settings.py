"""Django settings of the workers in test_metrics.py: those of the live tests, with metrics."""

import json
import os

from letters_settings import *  # noqa: F403

TASKKIT = {"RELEASE": "live", "METRICS": json.loads(os.environ.get("METRICS_OF_TEST", '["prometheus"]'))}
