"""Publish some tasks from a fresh process of one side and print what one took: seconds, seconds of CPU."""

import json
import sys
import time

from bench_app import app, nothing


def measure(number: int) -> tuple[float, float]:
    """Return seconds and seconds of CPU for one ``apply_async``, on a connection that is open."""
    for index in range(50):
        nothing.apply_async((index,), {"text": "warm", "flag": True})
    started, cpu = time.perf_counter(), time.process_time()
    for index in range(number):
        nothing.apply_async((index,), {"text": "a receipt", "flag": True})
    return (time.perf_counter() - started) / number, (time.process_time() - cpu) / number


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
    app.close()
