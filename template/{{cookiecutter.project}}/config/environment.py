"""Where settings come from: the environment, and the file .env for what it does not say."""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

FILE = Path(__file__).resolve().parent.parent / ".env"


class Environment:
    """Values by name. One that is empty counts as one that is not there."""

    #: Values instead of the file and the environment: the tests have these, whatever a machine says.
    only: dict[str, str] | None = None

    def __init__(self, file: Path = FILE):
        if self.only is not None:
            self.values = dict(self.only)
            return
        self.values = dict(self._read(file)) if file.is_file() else {}
        self.values.update({name: value for name, value in os.environ.items() if value})

    @staticmethod
    def _read(file: Path):
        """Yield what Docker Compose and systemd would read: both take the quotes off a value."""
        for line in file.read_text(encoding="utf-8").splitlines():
            name, equals, value = line.strip().removeprefix("export ").partition("=")
            if equals and not name.startswith("#"):
                value = value.strip()
                is_quoted = len(value) > 1 and value[0] in "'\"" and value[0] == value[-1]
                yield name.strip(), value[1:-1] if is_quoted else value

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
