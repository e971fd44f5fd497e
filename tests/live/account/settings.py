"""Django settings of a project with django_taskkit, on the private database of one run."""

import json
import os

from account.projects import here

SECRET_KEY = "for the tests only"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_taskkit"]
DATABASES = {"default": json.loads(os.environ.get("TASKKIT_TEST_LIVE_DATABASE", "{}"))}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TASKKIT = {**(here().taskkit or {}), "SPOOL_DIR": os.environ.get("TASKKIT_TEST_SPOOL", "")}

# As the package of a project does it: whatever Django runs finds the app, the relay as well.
import account.project  # noqa: E402, F401
