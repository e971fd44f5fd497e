"""Write constraints.txt of the template: one version of everything that any answer installs.

    python template/pin.py

Needs uv, Jinja2 and a package index. Run it when requirements of the template or of django-taskkit change, and before
a release. It writes nothing unless the versions go together with each Django on offer.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import jinja2

HERE = Path(__file__).resolve().parent
PROJECT = HERE / "{{cookiecutter.project}}"
TARGET = PROJECT / "constraints.txt"
HEADER = """\
# One version of everything that can be installed here, so that it is the same on all machines. pip finds this file by
# requirements.txt, which says itself which Django it is. docs/updating.md says how to take newer ones.
"""
OLDEST = "3.12"
QUIETLY = ("--quiet", "--no-header", "--no-annotate", "--no-config")
#: Not ours to pin: the one is an answer, the other is what this template belongs to.
LEFT_OUT = ("django", "django-taskkit")


def questions():
    asked = json.loads((HERE / "cookiecutter.json").read_text(encoding="utf-8"))
    return {name: value for name, value in asked.items() if isinstance(value, list) and not name.startswith("_")}


def requirements(**answers):
    """The lines of both files of requirements, for these answers; django-taskkit is that of this checkout."""
    chosen = {name: values[0] for name, values in questions().items()} | answers
    lines = []
    for name in ("requirements.txt", "requirements-dev.txt"):
        template = jinja2.Template((PROJECT / name).read_text(encoding="utf-8"))
        for line in template.render(cookiecutter=chosen).splitlines():
            if line and not line.startswith(("#", "-")):
                taskkit = re.fullmatch(r"(django-taskkit(?:\[.*\])?).*", line)
                lines.append(f"{taskkit[1]} @ {HERE.parent.as_uri()}" if taskkit else line)
    return lines


def of_all_answers(django, without=()):
    """Whatever an answer brings in, each taken alone; with this Django."""
    lines = {
        line: None
        for name, values in questions().items()
        for value in values
        for line in requirements(**{name: value, "django": django})
    }
    return [line for line in lines if not line.startswith(tuple(without))]


def compiled(lines, *options):
    """Every package with its version, as uv resolves them for all platforms; or the end, with its reason."""
    done = subprocess.run(
        ["uv", "pip", "compile", "--universal", "--python-version", OLDEST, *QUIETLY, *options, "-"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return [line for line in done.stdout.splitlines() if re.split(r"[=@ \[]", line)[0] not in LEFT_OUT]


def main():
    pins = compiled(of_all_answers("6.0"))
    written = TARGET.with_suffix(".new")
    written.write_text(HEADER + "\n".join(pins) + "\n", encoding="utf-8")
    try:
        compiled(of_all_answers("5.2"), "--constraint", str(written))
        # The hook refuses this pair: the newest django-celery-beat stops below Django 6.1.
        compiled(of_all_answers("6.1", without=["django-celery-beat"]), "--constraint", str(written))
    except SystemExit:
        written.unlink()
        raise
    written.replace(TARGET)
    print(f"{TARGET.name}: {len(pins)} versions")


if __name__ == "__main__":
    main()
