"""One of several processes that count up the same value; see test_contract.py."""

import json
import sys

import django
from django.conf import settings

key, times, chosen, database = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4])
if database["ENGINE"].endswith("mysql"):
    import pymysql

    pymysql.install_as_MySQLdb()
settings.configure(**chosen, DATABASES={"default": database}, INSTALLED_APPS=[], USE_TZ=True)
django.setup()

from django_taskkit.stores import update  # noqa: E402
from django_taskkit.stores.opening import shared_store  # noqa: E402


def one_more(value):
    return b"%d" % (int(value or 0) + 1), None


print("ready", flush=True)
sys.stdin.readline()  # all begin at once
for _ in range(times):
    update(shared_store(), key, one_more, ttl=600)
