"""What the checks say: asked as ``manage.py check`` asks, and as ``check --deploy`` does."""

from django.core import checks


def messages():
    return [message for message in checks.run_checks() if message.id.startswith("taskkit.")]


def ids():
    return [message.id.removeprefix("taskkit.") for message in messages()]


def deployment(*ids):
    """What ``check --deploy`` says under these ids; all of ours without any."""
    found = checks.run_checks(include_deployment_checks=True)
    return [message for message in found if (message.id in ids if ids else message.id.startswith("taskkit."))]


def said(number, *, deploy):
    """The texts under ``taskkit.<number>``."""
    found = deployment() if deploy else messages()
    return [message for message in found if message.id == f"taskkit.{number}"]
