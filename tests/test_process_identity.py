"""A process is told from another that has its number."""

import subprocess
import sys

import pytest

from django_taskkit.process_identity import are_apart, is_gone, of_this_process

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


def test_this_process_is_there():
    assert not is_gone(of_this_process())


def test_one_that_has_ended_is_gone_even_if_nobody_has_waited_for_it():
    code = "from django_taskkit.process_identity import of_this_process as it; print(it())"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        identity = process.stdout.read().strip()
    assert is_gone(identity)


def test_its_number_in_another_process_does_not_make_it_alive():
    place, pid, began = of_this_process().rsplit("/", 2)

    assert is_gone(f"{place}/{pid}/{int(began) + 1}")


@pytest.mark.parametrize("identity", ["", "nonsense", "other-boot/pid:[1]/1/1", "a/b/c/d"])
def test_of_what_ran_elsewhere_nobody_can_say(identity):
    assert not is_gone(identity)


def test_containers_and_starts_of_a_machine_are_apart_and_what_is_unknown_is_not():
    me = of_this_process()
    boot, namespace, _pid, _began = me.split("/")

    assert not are_apart(me, f"{boot}/{namespace}/1/1")
    assert are_apart(me, f"{boot}/pid:[1]/1/1")
    assert are_apart(f"other/{namespace}/1/1", me)
    assert not are_apart(me, "")
    assert not are_apart("", me)
