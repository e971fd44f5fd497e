"""``python -m django_taskkit.observability.health``: see probe.py."""

import sys

from django_taskkit.observability.health.probe import main

if __name__ == "__main__":
    sys.exit(main())
