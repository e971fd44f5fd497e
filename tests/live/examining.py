"""What the tests of the doctor share: its findings, and a Redis to be broken."""

from __future__ import annotations

import contextlib
import json
from io import StringIO

import redis as redis_client
from django.core.management import call_command
from harness import RedisServer, unavailable


def examined(*arguments):
    """Exit code and findings by id, of the doctor in this process with the current app; an id has its worst finding."""
    said, code = StringIO(), 0
    try:
        call_command("taskkit", "doctor", "--json", *arguments, stdout=said)
    except SystemExit as exit:
        code = exit.code
    order = ("ok", "unknown", "warning", "error")
    found = sorted(json.loads(said.getvalue())["findings"], key=lambda finding: order.index(finding["level"]))
    return code, {finding["id"]: finding for finding in found}


@contextlib.contextmanager
def redis_server(*commands, **options):
    server = RedisServer(**options)
    if not server.installed:
        unavailable("there is no redis-server on this machine")
    try:
        server.start()
        with redis_client.Redis(port=server.port) as client:
            for command in commands:
                client.execute_command(*command.split(" "))
        yield server
    finally:
        server.close()
