"""Make the secrets of this very project, and say what comes next."""

import os
import secrets
from pathlib import Path

SECRETS = {"SECRET_KEY": secrets.token_urlsafe(50), "DEBUG": "1"}


def filled(line):
    name, equals, value = line.partition("=")
    return f"{name}={SECRETS.pop(name)}" if equals and not value and name in SECRETS else line


example = Path(".env.example").read_text(encoding="utf-8")
text = "\n".join(filled(line) for line in example.splitlines()) + "\n"
if SECRETS:
    raise SystemExit(f".env.example has no blank line for {', '.join(SECRETS)}; add one to the template.")

# Private from its first byte on: it is never readable by others, not even for a moment.
with open(os.open(".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
    file.write(text)

print("""
{{ cookiecutter.project }}/ is ready. Next:

    cd {{ cookiecutter.project }}
    make install admin    # a virtual environment, the database, your admin user
    make run              # web, worker, beat and relay, until Ctrl-C
""")
