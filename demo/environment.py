"""The virtual environment of the demo: made once, and again when something changes that it was made from."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "template"
REQUIREMENTS = [TEMPLATE / "{{cookiecutter.project}}" / name for name in ("requirements.txt", "constraints.txt")]
MADE_FROM = (ROOT / "setup.cfg", ROOT / "pyproject.toml", TEMPLATE / "cookiecutter.json", *REQUIREMENTS, Path(__file__))
BUILD_TOOLS = ("setuptools>=77", "wheel")
OLDEST = (3, 12)
SOURCE = ("django_taskkit", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")


class SetupError(Exception):
    """The demo can't be set up on this machine."""


class Environment:
    """A folder per Python version, below `.venv-demo` in the checkout."""

    def __init__(self) -> None:
        version = ".".join(map(str, sys.version_info[:2]))
        self.folder = ROOT / ".venv-demo" / f"python{version}"
        self.python = self.folder / "bin" / "python"
        self._stamp = self.folder / "made-from"

    def is_current(self) -> bool:
        return self._stamp.is_file() and self._stamp.read_text() == self._state()

    def _state(self) -> str:
        digest = hashlib.sha256(f"{sys.version} {self.folder}".encode())
        for path in MADE_FROM:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def make(self) -> None:
        """Make the environment anew, with what the package and the template need."""
        if sys.version_info < OLDEST:
            raise SetupError(
                f"the template needs Python {'.'.join(map(str, OLDEST))} or newer, and this is "
                f"{sys.version.split()[0]}: make demo PYTHON=/path/to/python3.13"
            )
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(exist_ok=True)
        (self.folder.parent / ".gitignore").write_text("*\n")
        command = [sys.executable, "-m", "venv", str(self.folder)]
        made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if made.returncode:
            raise SetupError(
                f"{sys.executable} can't make a virtual environment; on Debian and Ubuntu, install "
                f"python3-venv. It says:\n{made.stdout}"
            )
        self._pip(*BUILD_TOOLS, "cookiecutter>=2.6")
        self.install_checkout("--no-build-isolation")
        with tempfile.TemporaryDirectory(prefix="taskkit-requirements-") as folder:
            # The package is there by now, so its name in the requirements asks for nothing more.
            self._pip("--requirement", str(self.render(Path(folder)) / "requirements.txt"))
        self._stamp.write_text(self._state())

    def render(self, folder: Path) -> Path:
        """Render the template with its defaults; return the project's folder."""
        command = [str(self.python), "-m", "cookiecutter", "--no-input", "--default-config"]
        # cookiecutter notes the answers in the home folder, and leaves its rendered hooks with temporary files.
        env = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder)}
        done = subprocess.run(
            [*command, "--output-dir", str(folder), str(TEMPLATE)],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise SetupError(f"the template can't be rendered:\n{done.stdout}")
        return folder / "shop"

    def renew_checkout(self) -> None:
        """Install the checkout as it is now. Needs no network."""
        self.install_checkout("--no-build-isolation", "--no-deps", "--no-index", "--force-reinstall")

    def install_checkout(self, *options: str) -> None:
        # From a copy: setuptools builds in the tree, and its build/ would bring back modules deleted since.
        with tempfile.TemporaryDirectory(prefix="taskkit-source-") as copy:
            for name in SOURCE:
                source = ROOT / name
                if source.is_dir():
                    shutil.copytree(source, Path(copy, name), ignore=shutil.ignore_patterns("__pycache__"))
                elif source.exists():
                    shutil.copy(source, copy)
            self._pip(*options, copy)

    def _pip(self, *arguments: str) -> None:
        command = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            tail = "\n".join(done.stdout.splitlines()[-15:])
            raise SetupError(f"pip could not install {' '.join(arguments)}:\n{tail}")
