"""Where database and files of this project are, for backup.sh and restore.sh. No password is printed.

    connection.py FOLDER

{% if cookiecutter.database == "sqlite" -%}
Prints VAR_DIR and the database's file.
{%- else -%}
Prints VAR_DIR{% if cookiecutter.database == "mariadb" %} and the database's name{% endif %}, and writes what a client needs to log in to FOLDER/login,
which only its user can read.
{%- endif %}
"""

{% if cookiecutter.database != "sqlite" -%}
import os
{% endif -%}
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config.environment import choose_settings

choose_settings()

from django.conf import settings  # noqa: E402

DATABASE = settings.DATABASES["default"]
{%- if cookiecutter.database == "postgresql" %}


def login() -> str:
    """A service file of libpq: what is in it is on no command line and in no environment."""
    values = {
        "host": DATABASE["HOST"],
        "port": DATABASE["PORT"],
        "user": DATABASE["USER"],
        "password": DATABASE["PASSWORD"],
        "dbname": DATABASE["NAME"],
        **DATABASE.get("OPTIONS", {}),  # sslmode, sslrootcert
    }
    lines = [f"{name}={value}" for name, value in values.items() if value and isinstance(value, str | int)]
    return "\n".join(["[project]", *lines]) + "\n"
{%- elif cookiecutter.database == "mariadb" %}


def login() -> str:
    """A file of options for the clients: what is in it is on no command line and in no environment."""
    values = {
        "host": DATABASE["HOST"],
        "port": DATABASE["PORT"],
        "user": DATABASE["USER"],
        "password": DATABASE["PASSWORD"],
    }
    if authority := DATABASE.get("OPTIONS", {}).get("ssl", {}).get("ca"):
        values["ssl-ca"] = authority
    quoted = {name: str(value).replace("\\", "\\\\").replace('"', '\\"') for name, value in values.items() if value}
    lines = [f'{name}="{value}"' for name, value in quoted.items()]
    if authority:
        lines.append("ssl-verify-server-cert")
    return "\n".join(["[client]", *lines]) + "\n"
{%- endif %}


print(settings.VAR_DIR)
{%- if cookiecutter.database != "postgresql" %}
print(DATABASE["NAME"])
{%- endif %}
{%- if cookiecutter.database != "sqlite" %}
with open(os.open(Path(sys.argv[1]) / "login", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
    file.write(login())
{%- endif %}
