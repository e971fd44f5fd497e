"""Where settings come from: the environment, and the file .env for what it does not say."""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

FILE = Path(__file__).resolve().parent.parent / ".env"


class Environment:
    """Values by name. One that is empty counts as one that is not there."""

    def __init__(self, file: Path = FILE):
        self.values = dict(self._read(file)) if file.is_file() else {}
        self.values.update({name: value for name, value in os.environ.items() if value})

    @staticmethod
    def _read(file: Path):
        for line in file.read_text(encoding="utf-8").splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.lstrip().startswith("#"):
                yield name.strip(), value.strip()

    def text(self, name: str, default: str = "") -> str:
        return self.values.get(name) or default

    def required(self, name: str, remedy: str) -> str:
        if not (value := self.text(name)):
            raise ImproperlyConfigured(f"{name} is empty: {remedy}.")
        return value

    def yes(self, name: str) -> bool:
        return self.text(name).lower() in ("1", "true", "yes", "on")

    def number(self, name: str, default: int) -> int:
        value = self.text(name, str(default))
        if not value.isdecimal():
            raise ImproperlyConfigured(f"{name} is {value!r}; give a whole number, for example {default}.")
        return int(value)

    def names(self, name: str) -> list[str]:
        return [item.strip() for item in self.text(name).split(",") if item.strip()]

    def hand_on(self, *names: str) -> None:
        """Put values into the environment for libraries that look there themselves, and take away what is blank."""
        for name in names:
            os.environ.pop(name, None)
            if value := self.text(name):
                os.environ[name] = value


def choose_settings() -> None:
    """Say which settings Django reads: those of the environment or of .env, else the strict ones of production."""
    chosen = Environment().text("DJANGO_SETTINGS_MODULE", "config.settings.production")
    os.environ["DJANGO_SETTINGS_MODULE"] = chosen  # also where the environment has it, and blank
