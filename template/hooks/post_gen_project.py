"""Take away what the answers don't need, make the secrets of this very project, and say what comes next.

Needs no network, no Docker, no git, and nothing but Python.
"""

import json
import os
import secrets
import shutil
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

SERVERS = {"postgresql", "mariadb", "redis", "rabbitmq"}
USES_SERVER = bool({ANSWERS["database"], ANSWERS["broker"], ANSWERS["results"]} & SERVERS)
IN_IMAGE = ANSWERS["deployment"] in ("compose", "kubernetes")
UNITS = f"deploy/systemd/{ANSWERS['project']}"
LANES = ("customers", "reports", "geocoding", "default")

#: What is there for some answers only: path, and whether it stays. One that is missing is a fault of the template.
CONDITIONAL = {
    ".github": ANSWERS["ci"] == "github",
    ".gitlab-ci.yml": ANSWERS["ci"] == "gitlab",
    "Dockerfile": IN_IMAGE,
    ".dockerignore": IN_IMAGE,
    "compose.yaml": ANSWERS["deployment"] == "compose",
    "compose.dev.yaml": USES_SERVER,
    "services.py": USES_SERVER,
    "deploy/compose": ANSWERS["deployment"] == "compose",
    f"{UNITS}-flower.service": ANSWERS["flower"] == "yes",
    f"{UNITS}-exporter.service": ANSWERS["observability"] == "prometheus",
    **{f"{UNITS}-worker@{lane}.service.d": ANSWERS["observability"] == "prometheus" for lane in LANES},
    "deploy/systemd": ANSWERS["deployment"] == "systemd",
    "deploy/supervisor": ANSWERS["deployment"] == "supervisor",
    "deploy/kubernetes/base/flower.yaml": ANSWERS["flower"] == "yes",
    "deploy/kubernetes/base/exporter.yaml": ANSWERS["observability"] == "prometheus",
    "deploy/kubernetes/components/pod-monitor": ANSWERS["observability"] == "prometheus",
    "deploy/kubernetes": ANSWERS["deployment"] == "kubernetes",
    "config/inside.py": ANSWERS["deployment"] == "kubernetes",
    "flowerconfig.py": ANSWERS["flower"] == "yes",
    "config/telemetry.py": ANSWERS["observability"] == "opentelemetry",
    "ops/prometheus.yml": ANSWERS["observability"] == "prometheus" and ANSWERS["deployment"] != "kubernetes",
    "ops/alerts.yml": ANSWERS["observability"] == "prometheus",
    "ops/dashboard.json": ANSWERS["observability"] == "prometheus",
}

#: For development; production has secrets of its own.
PASSWORD = secrets.token_urlsafe(16)
VALUES = {
    "SECRET_KEY": secrets.token_urlsafe(50),
    "DJANGO_SETTINGS_MODULE": "config.settings.development",
    "DATABASE_URL": {
        "postgresql": f"postgresql://{ANSWERS['project']}:{PASSWORD}@127.0.0.1:5432/{ANSWERS['project']}",
        "mariadb": f"mysql://{ANSWERS['project']}:{PASSWORD}@127.0.0.1:3306/{ANSWERS['project']}",
    }.get(ANSWERS["database"], ""),
    "POSTGRES_PASSWORD": PASSWORD if ANSWERS["database"] == "postgresql" else "",
    "MARIADB_PASSWORD": PASSWORD if ANSWERS["database"] == "mariadb" else "",
    "BROKER_URL": {
        "redis": "redis://127.0.0.1:6379/0",
        "rabbitmq": "amqp://guest:guest@127.0.0.1:5672//",
        "sqs": "sqs://",
    }.get(ANSWERS["broker"], ""),
    "CACHE_URL": "redis://127.0.0.1:6379/1" if "redis" in (ANSWERS["broker"], ANSWERS["results"]) else "",
    "RESULT_URL": "redis://127.0.0.1:6379/2" if ANSWERS["results"] == "redis" else "",
    "FLOWER_BASIC_AUTH": f"admin:{secrets.token_urlsafe(16)}" if ANSWERS["flower"] == "yes" else "",
}


def prune():
    for name, stays in CONDITIONAL.items():
        path = Path(name)
        if not path.exists():
            raise SystemExit(f"{name} is not in the template; take it out of hooks/post_gen_project.py.")
        if not stays:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    # Files without a word are what is left of a module that these answers don't need.
    for path in Path("deploy"), Path("ops"):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def write_secrets():
    left = {name: value for name, value in VALUES.items() if value}
    lines = []
    for line in Path(".env.example").read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        lines.append(f"{name}={left.pop(name)}" if equals and not value and name in left else line)
    if left:
        raise SystemExit(f".env.example has no blank line for {', '.join(left)}; add one to the template.")
    # Private from its first byte on: it is never readable by others, not even for a moment.
    with open(os.open(".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


prune()
write_secrets()
print("""
{{ cookiecutter.project }}/ is ready. Next:

    cd {{ cookiecutter.project }}
    make install admin    # a virtual environment, the database, your admin user (TASKKIT=PATH: from a checkout)
    make run              # everything, until Ctrl-C
""")
