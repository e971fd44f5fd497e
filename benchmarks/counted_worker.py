"""The worker of one side under cProfile: how many calls its main process makes is the same on a busy machine."""

import cProfile
import pstats
import sys

from bench_app import FOLDER, SIDE, app
from celery.signals import worker_process_init, worker_ready

profile = cProfile.Profile()


@worker_ready.connect
def begin(**kwargs):
    profile.enable()


@worker_process_init.connect
def spare_the_pool(**kwargs):
    profile.disable()


try:
    app.worker_main(sys.argv[1:])
finally:
    profile.disable()
    (FOLDER / f"calls-{SIDE}").write_text(str(pstats.Stats(profile).total_calls))
