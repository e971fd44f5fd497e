"""The project of benchmarks/metrics.py --workers: with the app on both sides, and metrics on one."""

import os

from bench_settings import *  # noqa: F403

TASKKIT = {"METRICS": ["prometheus"] if os.environ["BENCH_SIDE"] == "metrics" else []}
