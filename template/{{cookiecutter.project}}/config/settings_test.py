"""Settings of the tests: all in a throw-away folder, so that they never meet what is real, with any .env."""

import os
import tempfile

_folder = tempfile.TemporaryDirectory(prefix="{{ cookiecutter.project }}-test-")  # removed at exit
os.environ["VAR_DIR"] = _folder.name
os.environ["DEBUG"] = "1"
os.environ["BROKER_URL"] = "filesystem://"
os.environ["CACHE_URL"] = "db://"

from config.settings import *  # noqa: E402, F403
