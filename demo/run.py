"""Show django-taskkit at work: set everything up, start it, send a dozen tasks, and say what to look at.

With --check, go through the story over HTTP as a person would, and exit 0 only if all of it came true.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from browser import PageError
from environment import Environment, SetupError
from project import ADMIN, Project
from story import STEPS, Story

WIDTH = 33


def step(title: str, action: Callable[[], object]) -> None:
    """Run `action` and print what came of it, and how long it took."""
    started = time.monotonic()
    if sys.stdout.isatty():
        print(f"   ...  {title}", end="\r", flush=True)
    try:
        outcome = action()
    except Exception:
        print(f"FAILED  {title:{WIDTH}}{time.monotonic() - started:6.1f} s", flush=True)
        raise
    seconds = time.monotonic() - started
    line = f"    ok  {title:{WIDTH}}{seconds:6.1f} s  {outcome if isinstance(outcome, str) else ''}"
    print(line.rstrip(), flush=True)


def set_up(options: argparse.Namespace, folder: Path) -> Project:
    environment = Environment()
    if environment.is_current():
        step("install the checkout", environment.renew_checkout)
    else:
        step("make a virtual environment", environment.make)
    project = Project(environment, folder, options.port)
    step("render the template", project.render)
    step("make the database", project.migrate)
    step("create an admin user", project.create_admin)
    return project


def start(project: Project) -> None:
    step("start web, workers, beat, relay", project.start)
    step("all of them are ready", project.wait_for_processes)
    step("place six orders: twelve tasks", project.place_orders)
    step("make up orders of two years", project.place_past_orders)


def tell(project: Project) -> None:
    print(f"""
  {project.address}admin/      user {ADMIN}      password {project.password}

  Twelve tasks were sent, for six orders: a receipt and a parcel each.

  1. Orders         Eight tasks are done. Four parcels took three attempts, as the carrier was busy.
  2. Dead letters   Four died: two receipts (the customer has no e-mail address), and, after their
                    retries, two parcels (no carrier knows the postcode). Open one: the traceback
                    and the arguments are there.
  3. Customers      Fill in the missing e-mail address of that order's customer.
  4. Dead letters   Requeue it. Seconds later it is "recovered", and the receipt is a file in
                    {project.path / "var" / "mail"}

  {project.address}      two pages on what a task has made, with the same user

  5. Sales          A report, made by a task when you open it: see the bar. Then it is cached. Place an
                    order in the admin, and the next one who looks has it made anew.
  6. Orders         An Excel file, made when you ask for it. Try it without JavaScript as well.

  The log of all processes: {project.log}
  Ctrl-C stops everything.
""")


def stay(project: Project) -> int:
    """Wait for Ctrl-C."""
    try:
        while project.is_running():
            time.sleep(0.5)
    except KeyboardInterrupt:
        print("\n  Stopping ...", flush=True)
        return 0
    print(f"The project has stopped by itself. The end of its log:\n\n{project.log_tail()}", file=sys.stderr)
    return 1


def check(project: Project) -> int:
    story = Story(project.address, ADMIN, project.password, project.path / "var" / "mail")
    for title, action in STEPS:
        step(title, lambda action=action: action(story))  # type: ignore[misc]
    return 0


def run(options: argparse.Namespace, folder: Path) -> int:
    project = None
    try:
        project = set_up(options, folder)
        start(project)
        if options.check:
            return check(project)
        tell(project)
        return stay(project)
    except (PageError, SetupError) as exc:
        print(f"\n{exc}", file=sys.stderr)
        if project is not None and project.log.exists():
            print(f"\nThe end of the log:\n\n{project.log_tail()}", file=sys.stderr)
        return 1
    finally:
        if project is not None:
            project.stop()


def leave(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="go through the story, then stop")
    parser.add_argument("--keep", action="store_true", help="leave the project's folder when done")
    parser.add_argument("--port", type=int, help="of the web server; by default a free one")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if started in the background
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="taskkit-demo-"))
    try:
        code = run(options, folder)
    except KeyboardInterrupt:
        code = 130
    finally:
        if options.keep:
            print(f"\n  The project is in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if options.check:
        verdict = "All came true" if code == 0 else "Not all came true"
        print(f"\n{verdict}, {time.monotonic() - started:.0f} s.")
    return code


if __name__ == "__main__":
    sys.exit(main())
