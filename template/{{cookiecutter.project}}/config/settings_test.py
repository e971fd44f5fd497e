"""Settings of the tests: a throw-away folder, so that they never meet the real database, broker or mails."""

import os
import tempfile

_folder = tempfile.TemporaryDirectory(prefix="{{ cookiecutter.project }}-test-")  # removed at exit
os.environ["VAR_DIR"] = _folder.name
os.environ["DEBUG"] = "1"

from config.settings import *  # noqa: E402, F403
