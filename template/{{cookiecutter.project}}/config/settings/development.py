"""Your own machine: error pages with source code, mails as files, a log that people read."""

from config.settings.base import *  # noqa: F403
from config.settings.base import VAR_DIR
from config.settings.tasks import *  # noqa: F403

DEBUG = True

# Mails that would be sent, to look at.
_mails = VAR_DIR / "mail"
_mails.mkdir(mode=0o700, exist_ok=True)
{%- if cookiecutter.django == "6.1" %}
MAILERS = {
    "default": {
        "BACKEND": "django.core.mail.backends.filebased.EmailBackend",
        "OPTIONS": {"file_path": _mails},
    }
}
{%- else %}
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = _mails
{%- endif %}
