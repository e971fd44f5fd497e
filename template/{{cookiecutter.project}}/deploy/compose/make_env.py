"""Write .env.production, with fresh secrets: python3 deploy/compose/make_env.py shop.example

It is made from .env.example, is readable by you alone, and is never written over. Needs nothing but Python.
"""

import argparse
import os
import re
import secrets
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

#: What compose.yaml says itself, which knows its own servers, volumes and releases.
SAID_BY_COMPOSE = (
    "DJANGO_SETTINGS_MODULE",
    "RELEASE",
    "VAR_DIR",
    "TASKKIT_HEALTH_DIR",
{%- if cookiecutter.database != "sqlite" %}
    "DATABASE_URL",
{%- endif %}
{%- if cookiecutter.broker != "embedded" %}
    "BROKER_URL",
{%- endif %}
{%- if cookiecutter.results == "redis" %}
    "RESULT_URL",
{%- endif %}
{%- if cookiecutter.broker == "redis" or cookiecutter.results == "redis" %}
    "CACHE_URL",
{%- endif %}
)

#: What only you know, and production does not start without.
YOURS = "EMAIL_HOST{% if cookiecutter.broker == "sqs" %}, AWS_REGION{% endif %}"


def values(host: str) -> dict[str, str]:
    return {
        "SECRET_KEY": secrets.token_urlsafe(50),
        # web: the name under which health checks{% if cookiecutter.observability == "prometheus" %} and Prometheus{% endif %} ask; from outside only the first comes through.
        "ALLOWED_HOSTS": f"{host},web",
        "BEHIND_PROXY": "1",
        "SITE_URL": f"https://{host}",
{%- if cookiecutter.database == "postgresql" %}
        "POSTGRES_PASSWORD": secrets.token_urlsafe(24),
{%- elif cookiecutter.database == "mariadb" %}
        "MARIADB_PASSWORD": secrets.token_urlsafe(24),
{%- endif %}
{%- if cookiecutter.flower == "yes" %}
        "FLOWER_BASIC_AUTH": f"admin:{secrets.token_urlsafe(24)}",
{%- endif %}
{%- if cookiecutter.observability == "prometheus" %}
        "TASKKIT_METRICS_TOKEN": secrets.token_urlsafe(24),
{%- endif %}
    }


def servers(host: str) -> dict[str, str]:
    """What only compose.yaml reads: it hands each server what that one needs."""
    return {
        "SITE_HOST": host,
{%- if cookiecutter.broker == "redis" or cookiecutter.results == "redis" %}
        "REDIS_PASSWORD": secrets.token_urlsafe(24),
{%- endif %}
{%- if cookiecutter.broker == "rabbitmq" %}
        "RABBITMQ_PASSWORD": secrets.token_urlsafe(24),
{%- endif %}
    }


def filled(example: str, known: dict[str, str]) -> list[str]:
    """The lines of .env.example with what is known, and without what compose.yaml says, comments included."""
    left, lines, comments = dict(known), [], []
    for line in example.splitlines():
        name, equals, value = line.partition("=")
        if line.startswith("#") or not equals:
            comments.append(line)
            continue
        if name not in SAID_BY_COMPOSE:
            lines += [*comments, f"{name}={left.pop(name, value)}"]
        comments = []
    if left:
        raise SystemExit(f".env.example has no line for {', '.join(left)}; add one.")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host", help="where the site will be reached, as in shop.example")
    host = parser.parse_args().host
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", host):
        sys.exit(f"{host!r} is not the name of a host; give one such as shop.example, without https:// and port.")
    lines = filled((PROJECT / ".env.example").read_text(encoding="utf-8"), values(host))
    lines += ["# Read by compose.yaml alone. A password that is changed here has to be changed in its server, too."]
    lines += [f"{name}={value}" for name, value in servers(host).items()]
    target = PROJECT / ".env.production"
    try:
        # Private from its first byte on.
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        sys.exit(f"{target.name} is there already, and holds the passwords of your servers; it stays as it is.")
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    print(f"{target.name} is written. Fill in {YOURS} and what else you need, then")
    print("    deploy/compose/deploy.sh")


if __name__ == "__main__":
    main()
