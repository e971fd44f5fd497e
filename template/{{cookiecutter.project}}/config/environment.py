"""Where settings come from: the environment, and the file .env for what it does not say."""

import os
from pathlib import Path


class Environment:
    def __init__(self, file: Path):
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

    def yes(self, name: str) -> bool:
        return self.text(name).lower() in ("1", "true", "yes", "on")

    def number(self, name: str, default: int) -> int:
        value = self.text(name, str(default))
        if not value.isdecimal():
            raise ValueError(f"{name} is {value!r}; give a whole number, for example {default}.")
        return int(value)

    def names(self, name: str) -> list[str]:
        return [item.strip() for item in self.text(name).split(",") if item.strip()]
