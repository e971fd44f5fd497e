"""What compose.yaml says about a service, read as Compose reads it."""

import re
import subprocess
import sys

import yaml

#: What deploy/compose/deploy.sh writes to .env.release.
RELEASE = "v1"

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?:(?P<rule>:[-?])(?P<word>[^}]*))?\})")


class Composed:
    """A compose file, and the environment that its services get."""

    def __init__(self, baked, name="compose.yaml", env_file=".env.production"):
        self.baked = baked
        self.text = baked.text(name)
        self.env_file = baked.path / env_file
        self.file = yaml.safe_load(self.text)
        self.services = self.file["services"]

    @property
    def names(self):
        """The variables that the file asks its reader for."""
        return {found["name"] for found in _VARIABLE.finditer(self.text) if found["name"]}

    @property
    def own(self):
        """The services that run the project's image."""
        return {name: service for name, service in self.services.items() if "build" in service}

    @property
    def values(self):
        lines = self.env_file.read_text(encoding="utf-8").splitlines()
        said = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        return {"RELEASE": RELEASE, **said}

    def environment(self, service):
        """The variables of a service, with what is in the env file filled in."""
        said = self.services[service]
        values = dict(self.values) if said.get("env_file") == [self.env_file.name] else {}
        return {**values, **{name: self.fill(str(value)) for name, value in said.get("environment", {}).items()}}

    def fill(self, text):
        return _VARIABLE.sub(self._value, text)

    def _value(self, found):
        if not found["name"]:
            return "$"
        if value := self.values.get(found["name"]):
            return value
        assert found["rule"] != ":?", f"{found['name']} is missing: {found['word']}"
        return found["word"] if found["rule"] == ":-" else ""


def make_production_env(baked, host="shop.example"):
    """Run deploy/compose/make_env.py; return what it said and how it ended."""
    done = subprocess.run(
        [sys.executable, "deploy/compose/make_env.py", host],
        cwd=baked.path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout + done.stderr, done.returncode
