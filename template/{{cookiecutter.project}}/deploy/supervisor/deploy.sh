#!/usr/bin/env bash
# Put the code in /srv/{{ cookiecutter.project }} into service. As root, after it was copied there:
#
#   rsync --archive --delete --chown=root:root --chmod=u=rwX,go=rX \
#       --exclude=.env --exclude=.venv --exclude=var --exclude=staticfiles ./ root@host:/srv/{{ cookiecutter.project }}/
#   ssh root@host /srv/{{ cookiecutter.project }}/deploy/supervisor/deploy.sh
#
# Old processes run until their turn comes, on the new schema, so migrations have to suit both: add first, remove in the
# next release. They keep the code that they have loaded. One that starts anew, as after a crash or with the machine, has
# the new code from the moment it was copied: run this right after the copy.
#
# Back: the same with the code of the old release (git checkout v1.1). Migrations are not undone.
set -euo pipefail
umask 022

project={{ cookiecutter.project }}
home=/srv/$project
programs=(worker-customers worker-reports worker-geocoding worker-default relay beat web{% if cookiecutter.flower == "yes" %} flower{% endif %}{% if cookiecutter.observability == "prometheus" %} exporter{% endif %})

refuse() {
    printf '%s\n' "$1" >&2
    exit 1
}

[[ $EUID -eq 0 ]] || refuse "Run this as root."
[[ -f $home/.env ]] || refuse "$home/.env is missing: deploy/supervisor/README.md says how to make it."
cd "$home"

# --- Whose it is -------------------------------------------------------------------------------------------
# Root runs some of it, and the programs read it. Without: whoever has the developer's number here could change what root
# runs, and code that was copied from a private folder can't be read.
chown root:root "$home"
chmod 755 "$home"
code=(find "$home" -mindepth 1 \( -path "$home/.venv" -o -path "$home/.env" -o -path "$home/var" -o -path "$home/staticfiles" \) -prune -o)
"${code[@]}" -exec chown --no-dereference root:root -- {} +
"${code[@]}" ! -type l -exec chmod u=rwX,go=rX -- {} +
chown "$project:$project" .env
chmod 600 .env

# --- New code, checks, static files, migrations ------------------------------------------------------------
[[ -x .venv/bin/python ]] || "${PYTHON:-python{{ cookiecutter.python }}}" -m venv .venv
.venv/bin/python -m pip install --quiet --requirement requirements.txt
for command in 'check --deploy --fail-level ERROR' 'collectstatic --noinput --verbosity 0' 'migrate --noinput' createcachetable; do
    # shellcheck disable=SC2086  # words
    runuser -u "$project" -- .venv/bin/python manage.py $command || refuse "Not deployed: manage.py $command
What runs goes on with the old code until it is started anew. A crash or a reboot would do that too, and start what lies
in $home now: deploy the old release, or mend this one, soon."
done

# --- Restart -----------------------------------------------------------------------------------------------
install -m 644 "deploy/supervisor/$project.conf" /etc/supervisor/conf.d/
install -m 644 "deploy/supervisor/$project.cron" "/etc/cron.d/$project"

# Workers before the web, so that no task is sent that they don't know. One after the other, each warm: it takes as long as
# the tasks that run. `update` with a name replaces that program alone, if its part of the file is new.
for program in "${programs[@]}"; do
    name=$project-$program
    changed=$(supervisorctl update "$name")
    [[ $changed == *"process group"* ]] || supervisorctl restart "$name" >/dev/null || true
    # STARTING until it has run for startsecs.
    until=$((SECONDS + 60))
    until supervisorctl status "$name" | grep --quiet ' RUNNING '; do
        ((SECONDS < until)) || refuse "$name does not run: /var/log/$project/$program.log. What comes after it is as it was."
        sleep 1
    done
    printf '%s\n' "$name"
done
printf 'In service. A program that this release has no more: supervisorctl reread, supervisorctl update ITS-NAME.\n'
