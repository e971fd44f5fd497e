"""How often a task's body runs for 50 duplicates, after retries, and after a kill: celery-once and celery-singleton
against ``idempotency_key``.

All on one Redis, in one run, with real workers. ``python benchmarks/idempotency.py --help``
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from private_redis import private_redis

HERE = Path(__file__).resolve().parent
SIDES = ("plain Celery", "celery-once", "celery-singleton", "django-taskkit")
RIVALS = ("celery-once", "celery-singleton")


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="taskkit-bench-") as folder, private_redis(Path(folder)) as url:
        rivals = options.rivals or _install(Path(folder, "rivals"))
        print(_versions(rivals), flush=True)
        sides = [
            _Side(name, rivals if name in RIVALS else sys.executable, f"{url}/{number}", Path(folder, name))
            for number, name in enumerate(SIDES)
        ]
        with ThreadPoolExecutor(len(sides)) as together:
            behaviour = [side.run("behaviour") for side in sides]
            kills = list(together.map(lambda side: side.run("kills", options.deadline), sides))
        turns: list[list[dict[str, Any]]] = [[] for _ in sides]
        for turn in range(options.turns + 1):
            for side, found in zip(sides, turns, strict=True):
                figures = side.run("overhead", options.batch, turn)
                if turn:  # the first is to warm up
                    found.append(figures)
        _report(behaviour, kills, turns, options.deadline)
    ours = behaviour[-1]
    is_as_promised = (
        ours["duplicates"]["bodies_after_one_more"] == ours["duplicates"]["bodies_by_name"] == 1
        and ours["spelling"]["bodies"] == 1
        and (ours["retry"]["state"], ours["retry"]["bodies"]) == ("SUCCESS", 2)
        and None not in kills[-1].values()
    )
    print("\nas promised" if is_as_promised else "\nNOT as promised")
    return 0 if is_as_promised else 1


class _Side:
    def __init__(self, name: str, python: str, redis: str, folder: Path) -> None:
        folder.mkdir()
        self.python = python
        self.env = {
            **os.environ,
            "BENCH_SIDE": name,
            "BENCH_REDIS": redis,
            "BENCH_FOLDER": str(folder),
            "C_FORCE_ROOT": "1",
            "PYTHONPATH": os.pathsep.join([str(HERE), *([str(HERE.parent)] if name == "django-taskkit" else [])]),
        }
        self.env.pop("DJANGO_SETTINGS_MODULE", None)
        if name == "django-taskkit":
            self.env["DJANGO_SETTINGS_MODULE"] = "idempotency_settings"

    def run(self, *arguments: object) -> dict[str, Any]:
        done = subprocess.run(
            [self.python, str(HERE / "idempotency_side.py"), *map(str, arguments)],
            env=self.env,
            cwd=HERE,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{self.env['BENCH_SIDE']}: {arguments}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        print(f"{self.env['BENCH_SIDE']}: {' '.join(map(str, arguments))}: {json.dumps(found)}", flush=True)
        return found


def _report(behaviour: list[Any], kills: list[Any], turns: list[list[dict[str, Any]]], deadline: int) -> None:
    def seconds(value: float | None) -> str:
        return f"not within {deadline} s" if value is None else f"{value:.0f} s"

    def callers(found: dict[str, int]) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))

    def ratio(found: list[dict[str, Any]], name: str) -> str:
        pairs = [ours[name] / plain[name] for ours, plain in zip(found, turns[0], strict=True)]
        return f"{statistics.median(pairs):.2f} ({1000 * statistics.median(one[name] for one in found):.2f} ms)"

    rows: list[tuple[str, list[str]]] = [
        ("bodies for 50 `delay()` at once", [str(side["duplicates"]["bodies"]) for side in behaviour]),
        ("what the 50 callers get", [callers(side["duplicates"]["callers"]) for side in behaviour]),
        (
            "… one more after it succeeded: bodies in all",
            [str(side["duplicates"]["bodies_after_one_more"]) for side in behaviour],
        ),
        ("bodies for 50 `send_task()` at once", [str(side["duplicates"]["bodies_by_name"]) for side in behaviour]),
        (
            "bodies for four spellings of one call",
            [
                str(side["spelling"]["bodies"]) + "".join(f"; {e}" for e in side["spelling"]["errors"])
                for side in behaviour
            ],
        ),
        ("a task that fails once ends as", [side["retry"]["state"] for side in behaviour]),
        ("… runs, and a duplicate's, sent meanwhile", [str(side["retry"]["bodies"]) for side in behaviour]),
        ("process killed: key runs again after", [seconds(side["one_process_killed"]) for side in kills]),
        ("worker killed: key runs again after", [seconds(side["whole_worker_killed"]) for side in kills]),
        ("`delay()`, ratio to plain", [ratio(found, "send") for found in turns]),
        ("… by CPU", [ratio(found, "send_cpu") for found in turns]),
        ("a run, worker's CPU, ratio to plain", [ratio(found, "run_cpu") for found in turns]),
    ]
    print(f"\n| | {' | '.join(SIDES)} |\n|---|{'---|' * len(SIDES)}")
    for name, cells in rows:
        print(f"| {name} | {' | '.join(cells)} |")


def _versions(rivals: str) -> str:
    code = (
        "import sys, platform; from importlib.metadata import version as v; "
        "print(platform.python_version(), *(f'{n} {v(n)}' for n in sys.argv[1:]), sep=', ')"
    )

    def ask(python: str, *names: str) -> str:
        return subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True).stdout.strip()

    today = datetime.datetime.now(tz=datetime.timezone.utc).date()
    return (
        f"{today}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n"
        f"Python {ask(rivals, 'celery', 'redis', *RIVALS)}\nPython {ask(sys.executable, 'celery', 'redis', 'Django')}"
    )


def _install(folder: Path) -> str:
    """Make an environment with the other two packages, on the Celery of this one; returns its Python."""
    import celery

    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    packages = [f"celery[redis]=={celery.__version__}", *RIVALS]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rivals", help="a Python that has celery-once and celery-singleton; else one is made")
    parser.add_argument("--deadline", type=int, default=180, help="seconds to wait for a key after a kill")
    parser.add_argument("--turns", type=int, default=5, help="of sending and running tasks with keys that differ")
    parser.add_argument("--batch", type=int, default=500, help="tasks of each side in one turn")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
