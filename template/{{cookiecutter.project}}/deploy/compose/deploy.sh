#!/usr/bin/env bash
# Put a release into service, on the machine that it runs on. The first time as well as each time after:
#
#   git pull && deploy/compose/deploy.sh    # builds what is checked out
#   deploy/compose/deploy.sh v1.2           # takes an image that was built here before: the way back
#
# What runs goes on while the image is built and the database migrated. Old processes run until their turn comes, on the new
# schema, so migrations have to suit both: add first, remove in the next release. `docker compose up` can't do that: it
# stops what it replaces before anything else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

project={{ cookiecutter.project }}

refuse() {
    printf '%s\n' "$1" >&2
    exit 1
}

[[ -f .env.production ]] || refuse ".env.production is missing; python3 deploy/compose/make_env.py HOST makes it."
before=$(sed -n 's/^RELEASE=//p' .env.release 2>/dev/null) || before=
if [[ $# -gt 0 ]]; then
    RELEASE=$1
    docker image inspect "$project:$RELEASE" >/dev/null 2>&1 ||
        refuse "There is no image $project:$RELEASE; docker image ls $project says which there are."
else
    RELEASE=$(git describe --always --dirty 2>/dev/null) || RELEASE=$(date -u +%Y%m%dT%H%M%SZ)
    # What a tag of git may have, and a tag of an image may not.
    RELEASE=${RELEASE//[^A-Za-z0-9_.-]/-}
fi
# For this script. All other commands find it in .env.release, once its migrations are done.
export RELEASE COMPOSE_ENV_FILES=.env.production

# Containers read these folders, some as a user of their own. Without: a umask of 077 keeps them out.
chmod -R u=rwX,go=rX deploy/compose ops
services=$(docker compose config --services)

# For `up`: as many of a service as there are now. Without: Compose goes back to one. Of the others there is never more.
kept() {
    local running
    case $1 in
        worker-geocoding) ;;
        web | worker-*)
            running=$(docker compose ps --quiet "$1" | grep -c .) || running=1
            scale+=(--scale "$1=$running")
            ;;
    esac
}

# --- Image, migrations ------------------------------------------------------------------------------------
if [[ $# -eq 0 ]]; then
    # By one service: all have this image.
    docker compose --profile release build release
{%- if cookiecutter.database != "sqlite" %}
    docker compose --profile backup build backup
{%- endif %}
fi
{%- if cookiecutter.database != "sqlite" or cookiecutter.broker in ("redis", "rabbitmq") or cookiecutter.results == "redis" %}
# Starts the servers, and waits for them.
{%- endif %}
docker compose run --rm --no-TTY release ||
    refuse "Release $RELEASE is not in service: its migrations failed. What ran goes on${before:+, as $before}."
printf 'RELEASE=%s\n' "$RELEASE" >.env.release.new
mv .env.release.new .env.release

# --- Containers -------------------------------------------------------------------------------------------
# Workers before the web, so that no task is sent that they don't know. One after the other, each warm: it takes as long as
# the tasks that run. --no-deps: nothing else is replaced. The time is for the new one, after the old one's end.
up() {
    docker compose up --detach --no-build --wait --wait-timeout 180 "$@" ||
        refuse "Release $RELEASE is in service in part: 'docker compose ps' says where it ended.${before:+ Before it was $before.}"
}

for service in $services; do
    [[ $service == worker-* ]] || continue
    scale=()
    kept "$service"
    up --no-deps ${scale[@]+"${scale[@]}"} "$service"
done
# All that is left. Caddy has visitors wait while the web is away.
scale=()
for service in $services; do kept "$service"; done
up "${scale[@]}"

# --- What containers read from files ----------------------------------------------------------------------
if grep -qx caddy <<<"$services"; then
    docker compose exec --no-TTY caddy caddy reload --config /etc/caddy/Caddyfile ||
        refuse "Release $RELEASE is in service, but Caddy goes on with its old Caddyfile."
fi
{%- if cookiecutter.observability == "prometheus" %}
if grep -qx prometheus <<<"$services"; then
    docker compose exec --no-TTY prometheus promtool check config /etc/prometheus/prometheus.yml ||
        refuse "Release $RELEASE is in service, but Prometheus goes on with its old rules."
    # Not `docker compose kill`: Docker takes that for a stop, and would not start it again.
    docker compose exec --no-TTY prometheus sh -c 'kill -HUP 1'
fi
{%- endif %}
printf 'Release %s is in service.\n' "$RELEASE"
