"""Tests: files and broker in a throw-away folder, so that they never meet what is real, with any .env."""

import os
import tempfile

from config.environment import Environment

_folder = tempfile.TemporaryDirectory(prefix="{{ cookiecutter.project }}-test-")  # removed at exit
# All that the settings are told here{% if cookiecutter.database != "sqlite" %}, but for the server of the database{% endif %}. Without: what .env says of mails,
# the release or the number of processes would decide whether a test passes.
Environment.only = {
    "DJANGO_SETTINGS_MODULE": __name__,
    "SECRET_KEY": "only for tests",
    "VAR_DIR": _folder.name,
    "BROKER_URL": "filesystem://",
{%- if cookiecutter.results == "redis" %}
    "RESULT_URL": f"file://{_folder.name}",
{%- endif %}
{%- if cookiecutter.database != "sqlite" %}
    "DATABASE_URL": Environment().text("DATABASE_URL"),
{%- endif %}
}
os.environ.update(Environment.only)  # for commands that tests start

from config.settings.base import *  # noqa: E402, F403
from config.settings.base import VAR_DIR  # noqa: E402
from config.settings.tasks import *  # noqa: E402, F403

DEBUG = True
STATIC_ROOT = VAR_DIR / "static"
STATIC_ROOT.mkdir()  # nothing is collected, and WhiteNoise warns where there is no folder
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # quick, as no test is about passwords
