"""Tests: files and broker in a throw-away folder, so that they never meet what is real, with any .env."""

import os
import tempfile

_folder = tempfile.TemporaryDirectory(prefix="{{ cookiecutter.project }}-test-")  # removed at exit
os.environ.update(VAR_DIR=_folder.name, BROKER_URL="filesystem://", CACHE_URL="db://", GEOCODER_URL="")
{% if cookiecutter.results == "redis" -%}
os.environ["RESULT_URL"] = f"file://{_folder.name}"
{% endif -%}
os.environ.setdefault("SECRET_KEY", "only for tests")

from config.settings.base import *  # noqa: E402, F403
from config.settings.base import VAR_DIR  # noqa: E402
from config.settings.tasks import *  # noqa: E402, F403

DEBUG = True
STATIC_ROOT = VAR_DIR / "static"
STATIC_ROOT.mkdir()  # nothing is collected, and WhiteNoise warns where there is no folder
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # quick, as no test is about passwords
