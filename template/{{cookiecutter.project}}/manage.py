#!/usr/bin/env python
import sys

from config.environment import choose_settings

if __name__ == "__main__":
    choose_settings()
    from django.core.management import execute_from_command_line
{%- if cookiecutter.observability == "opentelemetry" %}

    if sys.argv[1:2] == ["taskkit"]:  # the relay and the exporter, which run for long
        import django

        django.setup()
        from config import telemetry

        telemetry.set_up()
{%- endif %}

    execute_from_command_line(sys.argv)
