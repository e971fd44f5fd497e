"""A command that runs for long is told to stop, whatever it is doing at that moment."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from django_taskkit.management.stopping import stopped_by_signals

IN_THE_MIDST_OF_WAITING = """
import os, signal, threading
from django_taskkit.management.stopping import stopped_by_signals
stop = threading.Event()
with stopped_by_signals(stop):
    with stop._cond:  # which wait() holds when it begins
        os.kill(os.getpid(), signal.SIGTERM)
    stop.wait()
print("stopped")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_stops_the_command_and_handlers_are_as_before(number):
    before = signal.getsignal(number)
    stop = threading.Event()

    with stopped_by_signals(stop):
        assert signal.getsignal(number) is not before
        os.kill(os.getpid(), number)
        assert stop.wait(30)
        assert signal.getsignal(number) is before  # a second one ends the process
    assert signal.getsignal(number) is before


def test_a_signal_that_comes_while_the_event_is_locked_is_heard_all_the_same():
    done = subprocess.run([sys.executable, "-c", IN_THE_MIDST_OF_WAITING], capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.returncode) == ("stopped\n", 0), done.stderr


def test_in_another_thread_than_the_first_nothing_is_changed():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def run():
        with stopped_by_signals(threading.Event()):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert seen == [before]
