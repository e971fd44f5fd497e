"""What becomes of messages while things break, with and without django-taskkit.

``python tests/live/account_table.py run PROJECT BROKER`` does one run and prints its account; with ``--keep`` its
figures go into ``account/figures.json``. ``... page FILE`` writes the page made of them; without FILE it is printed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from account import figures, projects, report, run

BROKERS = ("redis", "rabbitmq", "rabbitmq-quorum")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    page = commands.add_parser("page")
    page.add_argument("file", nargs="?", type=Path)
    one = commands.add_parser("run")
    one.add_argument("project", choices=projects.PROJECTS)
    one.add_argument("broker", choices=BROKERS)
    one.add_argument("--messages", type=int, default=2000)
    one.add_argument("--mix", choices=("standard", "toxic"), default="toxic")
    one.add_argument("--rate", type=float, default=25, help="messages per second")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--cap", type=float, default=300, help="seconds after the last message was sent")
    one.add_argument("--forgetful", action="store_true", help="Redis without persistence")
    one.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    if options.command == "page":
        if options.file:
            options.file.write_text(figures.markdown())
        else:
            print(figures.markdown(), end="")
        return 0
    result = run.run(
        options.project,
        options.broker,
        options.messages,
        toxic=options.mix == "toxic",
        seed=options.seed,
        rate=options.rate,
        cap=options.cap,
        durable=not options.forgetful,
    )
    print(report.text(result))
    print(report.ends(result))
    if options.keep:
        figures.keep(result)
    return 1 if result.missing else 0


if __name__ == "__main__":
    sys.exit(main())
