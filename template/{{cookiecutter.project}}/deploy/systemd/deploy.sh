#!/usr/bin/env bash
# Put the code in /srv/{{ cookiecutter.project }} into service. As root, after it was copied there:
#
#   rsync --archive --delete --chown=root:root --chmod=u=rwX,go=rX \
#       --exclude=/.env --exclude=/.venv --exclude=/var --exclude=/staticfiles \
#       --exclude=/releases --exclude=/current --exclude=/next --exclude=/previous ./ root@host:/srv/{{ cookiecutter.project }}/
#   ssh root@host /srv/{{ cookiecutter.project }}/deploy/systemd/deploy.sh "$(git describe --always)"
#
# The first time as well as each time after. It becomes a release of its own, with its own .venv, in releases/; only when its
# checks and migrations are through, the link `current` is switched to it, from which everything runs. Old processes run
# until their turn comes, on the new schema, so migrations have to suit both: add first, remove in the next release.
#
# Back to the release before, at once; migrations are not undone:
#
#   /srv/{{ cookiecutter.project }}/deploy/systemd/deploy.sh --back
set -euo pipefail
umask 022

project={{ cookiecutter.project }}
home=/srv/$project
config=/etc/$project
units=$home/deploy/systemd
kept=3 # releases

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

# --- Whose it is -------------------------------------------------------------------------------------------
# Root runs some of it, and the services read it. Without: whoever has the developer's number here could change what root
# runs, and code that was copied from a private folder can't be read.
chown root:root "$home"
chmod 755 "$home"
code=(find "$home" -mindepth 1 \( -path "$home/releases" -o -path "$home/.venv" \) -prune -o)
"${code[@]}" -exec chown --no-dereference root:root -- {} +
"${code[@]}" ! -type l -exec chmod u=rwX,go=rX -- {} +

# --- What is there once ------------------------------------------------------------------------------------
install -D -m 644 "$units/$project-sysusers.conf" "/etc/sysusers.d/$project.conf"
install -D -m 644 "$units/$project-tmpfiles.conf" "/etc/tmpfiles.d/$project.conf"
systemd-sysusers "$project.conf"
systemd-tmpfiles --create "$project.conf"

# --- A release of its own ----------------------------------------------------------------------------------
cd "$home"
if [[ ${1:-} == --back ]]; then
    release=$(readlink --canonicalize-existing previous) || refuse "There is no release before this one."
else
    release=$home/releases/$(date --utc +%Y%m%dT%H%M%SZ)
    mkdir -p "$release"
    tar --create --exclude=./{releases,current,next,previous,.venv,var,staticfiles} . | tar --extract --directory="$release"
    cd "$release"
    printf 'RELEASE=%s\n' "${1:-unknown}" >release
    "${PYTHON:-python{{ cookiecutter.python }}}" -m venv .venv
    .venv/bin/python -m pip install --quiet --requirement requirements.txt
    # The services can't write here, and would compile everything at each start.
    .venv/bin/python -m compileall -q config orders
    install -d -o "$project" -g "$project" staticfiles

    ln --symbolic --force --no-dereference "$release" "$home/next"
    install -m 644 "$units/$project-release.service" /etc/systemd/system/
    systemctl daemon-reload
    systemctl start "$project-release.service" || refuse "Not deployed, and what ran goes on: journalctl -u $project-release"
fi

# --- Switch ------------------------------------------------------------------------------------------------
# From here on, what starts anew is of this release.
before=$(readlink --canonicalize-existing "$home/current" || true)
ln --symbolic --force --no-dereference "$release" "$home/next"
mv --no-target-directory "$home/next" "$home/current"
[[ -z $before || $before == "$release" ]] || ln --symbolic --force --no-dereference "$before" "$home/previous"
cd "$release"
install -m 644 release "$config/release"
units=$release/deploy/systemd
install -m 644 "$units/$project"*.{service,target,timer} /etc/systemd/system/
for folder in "$units"/*.service.d; do
    [[ -d $folder ]] || continue
    install -D -m 644 --target-directory="/etc/systemd/system/${folder##*/}" "$folder"/*.conf
done
systemctl daemon-reload

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

# The older ones, and what is left of those that failed.
find "$home/releases" -mindepth 1 -maxdepth 1 | sort | head --lines=-"$kept" | while read -r old; do
    [[ $old == "$release" || $old == "$before" ]] || rm -rf -- "$old"
done
printf 'Release %s is in service.\n' "$(sed 's/^RELEASE=//' release)"
