#!/usr/bin/env bash
# ops/restore.sh with the environment and the user of the services. As root:
#
#   systemctl stop {{ cookiecutter.project }}.target
#   deploy/systemd/restore.sh /var/backups/{{ cookiecutter.project }}/{{ cookiecutter.project }}-20260131T023000Z [--force]
#   deploy/systemd/manage.sh migrate
#   systemctl start {{ cookiecutter.project }}.target
#
# The user {{ cookiecutter.project }} has to be able to read the backup: chown -R one that comes from another machine.
set -euo pipefail

project={{ cookiecutter.project }}
backup=$(realpath -- "${1:?"give the folder of a backup"}")
shift

# What writes to the database, or would see it half-way. One that starts again and again (activating) counts.
running=$(systemctl list-units --plain --no-legend --state=active,activating,deactivating,reloading \
    "$project-web.service" "$project-worker@*.service" "$project-beat.service" "$project-relay.service" "$project-release.service" \
    | cut --delimiter=' ' --fields=1)
if [[ $running ]]; then
    printf 'Nothing was changed, as these run; systemctl stop %s.target\n%s\n' "$project" "$running" >&2
    exit 1
fi
exec systemd-run --pipe --quiet --wait --collect --uid="$project" --working-directory="/srv/$project/current" \
    --property=UMask=0077 \
    --property="EnvironmentFile=/etc/$project/env" \
    --property="EnvironmentFile=-/etc/$project/release" \
    --property="EnvironmentFile=/srv/$project/deploy/systemd/paths.env" \
    "/srv/$project/current/ops/restore.sh" "$backup" "$@"
