#!/usr/bin/env bash
# manage.py with the environment and the user of the services: sudo deploy/systemd/manage.sh taskkit list
set -euo pipefail

# A terminal for questions, or a pipe for what another command reads.
if [[ -t 0 && -t 1 ]]; then io=--pty; else io=--pipe; fi
exec systemd-run "$io" --quiet --wait --collect --uid={{ cookiecutter.project }} --working-directory=/srv/{{ cookiecutter.project }}/current \
    --property=UMask=0077 \
    --property=EnvironmentFile=/etc/{{ cookiecutter.project }}/env \
    --property=EnvironmentFile=-/etc/{{ cookiecutter.project }}/release \
    --property=EnvironmentFile=/srv/{{ cookiecutter.project }}/deploy/systemd/paths.env \
    /srv/{{ cookiecutter.project }}/current/.venv/bin/python manage.py "$@"
