"""``manage.py`` of the project in health_app.py."""

import sys

import health_app  # noqa: F401  (its app becomes the current one, as in a project's package)
from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
