"""Refuse answers that would make a project that does not work, with one sentence that says what to give instead."""

import json
import keyword
import re
import sys
from zoneinfo import available_timezones

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

TAKEN = {"celery", "config", "django", "django_taskkit", "kombu", "orders", "test", "tests"}

#: Pairs of answers that exclude each other, and why.
IMPOSSIBLE = [
    (
        {"django": "6.1", "scheduler": "django-celery-beat"},
        "its newest release, 2.9, refuses to be installed beside Django 6.1; take django=6.0, or scheduler=file",
    ),
    (
        {"database": "sqlite", "deployment": "kubernetes"},
        "the database would be a file of one pod, which no other pod sees; take database=postgresql or mariadb",
    ),
    (
        {"broker": "embedded", "deployment": "kubernetes"},
        "the broker would be a folder of one pod, which no other pod sees; take broker=redis, rabbitmq or sqs",
    ),
    (
        {"broker": "sqs", "flower": "yes"},
        "Flower lives on the workers' events, which SQS can't carry; take flower=no, or another broker",
    ),
    (
        {"broker": "embedded", "flower": "yes"},
        "Flower lives on the workers' events, which the broker in a folder does not carry; take flower=no, or "
        "another broker",
    ),
]


def complaint(answers):
    """Return what is wrong with the answers, or None."""
    project = answers["project"]
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", project):
        return (
            f"project is {project!r}, but it has to start with a small letter and go on with at most 39 "
            "small letters, digits and underscores, for example 'web_shop'."
        )
    if project in TAKEN or project in sys.stdlib_module_names or keyword.iskeyword(project):
        return f"project is {project!r}, which Python code needs already; give another, as in 'web_shop'."
    for name, limit in (("project_name", 60), ("author_name", 100)):
        text = answers[name]
        if not text.strip() or len(text) > limit or not text.isprintable() or set(text) & set('"\\'):
            return (
                f"{name} is {text!r}, but it has to be one line of 1 to {limit} characters without double "
                "quotes and backslashes, for example 'The Shop'."
            )
    return timezone_complaint(answers["timezone"]) or pair_complaint(answers)


def timezone_complaint(name):
    known = available_timezones() or {name}  # empty where there is no time zone data to compare with
    if name in known and re.fullmatch(r"[\w/+-]+", name):
        return None
    return f"timezone is {name!r}, which is not a time zone; give one like 'UTC' or 'Europe/Berlin'."


def pair_complaint(answers):
    for pair, reason in IMPOSSIBLE:
        if pair.items() <= answers.items():
            return f"{' with '.join(f'{name}={value}' for name, value in pair.items())} is not possible: {reason}."
    return None


problem = complaint(ANSWERS)
if problem:
    print(problem, file=sys.stderr)
    sys.exit(1)
