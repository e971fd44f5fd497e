#!/usr/bin/env bash
# Save the database, the files that people and tasks have made, and dead letters on the disk:
#
#   ops/backup.sh FOLDER          # makes FOLDER/{{ cookiecutter.project }}-20260131T023000Z
#
# KEEP=14: days after which backups in that folder are deleted. What this script is asked to save it reads from the settings
# of the project: run it with the environment of the web. Have another machine fetch the folder: a backup beside what it
# saves is none. A backup that was never restored is none either: ops/restore.sh.
#
# Not saved, on purpose:
{%- if cookiecutter.broker == "embedded" %}
# - the folder `broker`, which is the tasks that wait. A copy would be torn, and run again what has long been done.
{%- elif cookiecutter.broker == "redis" %}
# - Redis: the tasks that wait. A copy would run again what has long been done. Redis keeps them through a restart by
#   itself (appendonly yes).
{%- elif cookiecutter.broker == "rabbitmq" %}
# - RabbitMQ: the tasks that wait, durable by themselves. A copy would run again what has long been done.
{%- else %}
# - SQS: the tasks that wait; Amazon keeps them.
{%- endif %}
#   Messages that the broker did not take (outbox) and dead letters are in the database, and so saved.
# - caches{% if cookiecutter.results == "redis" %} and results in Redis, which are{% else %} in Redis, if you have one:{% endif %} made anew.
{%- if cookiecutter.deployment == "kubernetes" or cookiecutter.broker == "sqs" %}
# - the bucket, if MEDIA_BUCKET names one: turn its versions on.
{%- endif %}
set -euo pipefail
umask 077

target=${1:?"give a folder: ops/backup.sh /var/backups/{{ cookiecutter.project }}"}
keep=${KEEP:-14}
[[ $keep =~ ^[0-9]+$ ]] || { printf 'KEEP is %s; give days, as in 14.\n' "$keep" >&2; exit 2; }
mkdir -p -- "$target"
target=$(cd -- "$target" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
[[ -x $python ]] || python=python3

# Below a temporary name until it is whole: what bears the name of a backup is one.
work=$(mktemp -d "$target/.{{ cookiecutter.project }}.XXXXXX")
private=$(mktemp -d)
trap 'rm -rf -- "$work" "$private"' EXIT
connection=$("$python" ops/connection.py "$private")
{%- if cookiecutter.database == "postgresql" %}
var=$connection
{%- else %}
{ read -r var; read -r name; } <<<"$connection"
{%- endif %}

# Archive what is there of the given folders of VAR_DIR.
archive() {
    local file=$1 folder code=0 there=()
    shift
    for folder; do [[ ! -d $var/$folder ]] || there+=("$folder"); done
    if [[ -z ${there[*]-} ]]; then
        tar --create --gzip --file="$file" --files-from=/dev/null
    else
        # 1: a file was written or went away meanwhile, as files here do.
        tar --create --gzip --file="$file" --directory="$var" -- "${there[@]}" || code=$?
        ((code <= 1)) || return "$code"
    fi
    tar --list --gzip --file="$file" >/dev/null
}

# This order loses nothing while everything runs: a dead letter goes from the disk to the database, and a row is there
# before its file goes.
archive "$work/spool.tar.gz" spool
{%- if cookiecutter.database == "sqlite" %}
# SQLite's own backup: a state that was there, whoever writes meanwhile. A copy of the file is not.
"$python" - "$name" "$work/database.sqlite3" <<'PYTHON'
import sqlite3
import sys

source, copy = sqlite3.connect(sys.argv[1], timeout=60), sqlite3.connect(sys.argv[2])
source.backup(copy)
copy.execute("PRAGMA journal_mode=DELETE")  # one file
found = copy.execute("PRAGMA integrity_check").fetchone()[0]
if found != "ok":
    sys.exit(f"The copy of the database is damaged: {found}")
PYTHON
{%- elif cookiecutter.database == "postgresql" %}
export PGSERVICEFILE=$private/login PGSERVICE=project
# pg_dump refuses a server that is newer than itself, and does not say what to do.
client=$(pg_dump --version)
[[ $client =~ \ ([0-9]+) ]] && client=${BASH_REMATCH[1]}
server=$(($(psql --no-psqlrc --quiet --tuples-only --no-align --command='SHOW server_version_num') / 10000))
if ((client < server)); then
    printf 'The server is PostgreSQL %s, and pg_dump is of %s: no backup. Install the clients of %s (postgresql-client-%s{% if cookiecutter.deployment in ("compose", "kubernetes") %}, in the Dockerfile{% endif %}).\n' \
        "$server" "$client" "$server" "$server" >&2
    exit 1
fi
pg_dump --format=custom --no-owner --no-privileges --file="$work/database.dump"
pg_restore --list "$work/database.dump" | grep ' TABLE DATA .* django_migrations ' >/dev/null
{%- else %}
dump=$(command -v mariadb-dump || command -v mysqldump)
# --single-transaction: one moment of all tables, and nobody waits.
"$dump" --defaults-extra-file="$private/login" --single-transaction --quick --routines --triggers --hex-blob --no-tablespaces \
    --default-character-set=utf8mb4 "$name" | gzip >"$work/database.sql.gz"
# Its last line. Without: a dump that broke off looks whole.
gzip --decompress --stdout "$work/database.sql.gz" | tail -n 1 | grep --quiet '^-- Dump completed'
{%- endif %}
archive "$work/files.tar.gz" media exports

(cd "$work" && sha256sum -- * >SHA256SUMS)
sync -f "$work"
made=$target/{{ cookiecutter.project }}-$(date --utc +%Y%m%dT%H%M%SZ)
mv --no-target-directory -- "$work" "$made"

# Only now: a backup that fails deletes none. What an interrupted one left goes as well.
find "$target" -mindepth 1 -maxdepth 1 -type d \( -name '{{ cookiecutter.project }}-*Z' -mtime "+$keep" -o -name '.{{ cookiecutter.project }}.*' -mtime +1 \) \
    -exec rm -rf -- {} +
printf '%s\n' "$made"
