#!/usr/bin/env bash
# Put the code in /srv/{{ cookiecutter.project }} into service. As root, after it was copied there:
#
#   rsync --archive --delete --exclude=.env --exclude=.venv --exclude=var --exclude=staticfiles ./ root@host:/srv/{{ cookiecutter.project }}/
#   ssh root@host /srv/{{ cookiecutter.project }}/deploy/systemd/deploy.sh "$(git describe --always)"
#
# The first time as well as each time after. Old processes run until their turn comes, on the new schema, so migrations
# have to suit both: add first, remove in the next release.
set -euo pipefail
umask 022

project={{ cookiecutter.project }}
home=/srv/$project
config=/etc/$project
units=$home/deploy/systemd

refuse() {
    printf '%s\n' "$1" >&2
    exit 1
}

[[ $EUID -eq 0 ]] || refuse "Run this as root."
[[ -f $config/env ]] || refuse "$config/env is missing: deploy/systemd/README.md says how to make it."
# Settings would take from it what $config/env leaves blank, up to the settings of development.
[[ ! -e $home/.env ]] || refuse "$home/.env belongs to development; remove it here."
{%- if cookiecutter.database != "sqlite" %}
for tool in {% if cookiecutter.database == "postgresql" %}pg_dump pg_restore psql{% else %}mariadb mariadb-dump{% endif %}; do
    command -v "$tool" >/dev/null || refuse "$tool is missing, which the backup needs."
done
{%- endif %}

# --- What is there once ------------------------------------------------------------------------------------
install -D -m 644 "$units/$project-sysusers.conf" "/etc/sysusers.d/$project.conf"
install -D -m 644 "$units/$project-tmpfiles.conf" "/etc/tmpfiles.d/$project.conf"
systemd-sysusers "$project.conf"
systemd-tmpfiles --create "$project.conf"

# --- New code ----------------------------------------------------------------------------------------------
cd "$home"
[[ -x .venv/bin/python ]] || "${PYTHON:-python{{ cookiecutter.python }}}" -m venv .venv
.venv/bin/python -m pip install --quiet --requirement requirements.txt
# The services can't write here, and would compile everything at each start.
.venv/bin/python -m compileall -q config orders
printf 'RELEASE=%s\n' "${1:-unknown}" >"$config/release"

# --- Units -------------------------------------------------------------------------------------------------
install -m 644 "$units/$project"*.{service,target,timer} /etc/systemd/system/
for folder in "$units"/*.service.d; do
    [[ -d $folder ]] || continue
    install -D -m 644 --target-directory="/etc/systemd/system/${folder##*/}" "$folder"/*.conf
done
systemctl daemon-reload

# --- Checks, static files, migrations ----------------------------------------------------------------------
systemctl start "$project-release.service" || refuse "Not deployed, and what ran goes on: journalctl -u $project-release"

# --- Restart -----------------------------------------------------------------------------------------------
# Workers before the web, so that no task is sent that they don't know. One after the other, each warm: it takes as long as
# the tasks that run. One that does not come up ends this, and the others stay as they were.
restart() {
    local unit=$1 until=$((SECONDS + 120))
    shift
    [[ $(systemctl show --property=LoadState --value "$unit") != masked ]] || return 0
    printf '%s\n' "$unit"
    systemctl restart "$unit"
    [[ $# -gt 0 ]] || return 0
    until runuser -u "$project" -- .venv/bin/python -m django_taskkit.observability.health "$@" --dir "/run/$project" >/dev/null 2>&1; do
        ((SECONDS < until)) || refuse "$unit does not work: journalctl -u $unit"
        sleep 1
    done
}

for lane in customers reports geocoding default; do
    restart "$project-worker@$lane.service" worker --name "$project-$lane@$(uname -n)"
done
restart "$project-relay.service" relay
restart "$project-beat.service" beat --alive
restart "$project-web.service"
{%- if cookiecutter.flower == "yes" %}
restart "$project-flower.service"
{%- endif %}
{%- if cookiecutter.observability == "prometheus" %}
restart "$project-exporter.service"
{%- endif %}
systemctl enable --quiet --now "$project.target" "$project-backup.timer"
printf 'Release %s is in service.\n' "${1:-unknown}"
