#!/usr/bin/env bash
# Has a service run for two minutes, or as many seconds as given? Before, it may still be on its way to its first sign of
# life, and the health of one that stops or is stopped is nobody's concern.
#
#   has-started.sh {{ cookiecutter.project }}-beat.service [SECONDS]
set -euo pipefail

[[ $(systemctl show --property=ActiveState --value "$1") == active ]] || exit 1
since=$(systemctl show --property=ActiveEnterTimestampMonotonic --value "$1")
read -r now _ </proc/uptime
((${now%.*} - since / 1000000 >= ${2:-120}))
