#!/usr/bin/env bash
# Put a backup back:
#
#   ops/restore.sh /var/backups/{{ cookiecutter.project }}/{{ cookiecutter.project }}-20260131T023000Z [--force]
#
# Stop web, workers, beat and relay first. Into a database that has tables only with --force, which deletes them{% if cookiecutter.database == "mariadb" %}{% else %};
# if anything fails then, the database is as it was{% endif %}. Files are put beside those that are there.
#
# Afterwards: python manage.py migrate, if the code is newer; python manage.py taskkit doctor; start everything. Tasks that
# waited at the broker when the backup was made are not in it. `manage.py taskkit redrive` and the admin send dead letters
# again.
set -euo pipefail
umask 077

backup=${1:?"give the folder of a backup"}
force=${2:-}
[[ -z $force || $force == --force ]] || { printf 'What is %s? Only --force can follow.\n' "$force" >&2; exit 2; }
backup=$(cd -- "$backup" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
[[ -x $python ]] || python=python3

(cd "$backup" && sha256sum --check --quiet --strict SHA256SUMS) || { printf 'This backup is damaged; nothing was changed.\n' >&2; exit 1; }

private=$(mktemp -d)
trap 'rm -rf -- "$private"' EXIT
connection=$("$python" ops/connection.py "$private")
{%- if cookiecutter.database == "postgresql" %}
var=$connection
{%- else %}
{ read -r var; read -r name; } <<<"$connection"
{%- endif %}

refuse() {
    printf 'The database has %s tables. --force deletes them, and puts the backup in their place.\n' "$1" >&2
    exit 1
}
{%- if cookiecutter.database == "sqlite" %}

# Within one transaction, so that a process that was forgotten, and reads, sees the old or the new state.
"$python" - "$backup/database.sqlite3" "$name" "$force" <<'PYTHON'
import sqlite3
import sys

backup, name, force = sys.argv[1:]
copy, target = sqlite3.connect(f"file:{backup}?mode=ro", uri=True), sqlite3.connect(name)
found = copy.execute("PRAGMA integrity_check").fetchone()[0]
if found != "ok":
    sys.exit(f"The backup is damaged: {found}")
tables = target.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'").fetchone()[0]
if tables and not force:
    sys.exit(f"The database has {tables} tables. --force deletes them, and puts the backup in their place.")
copy.backup(target)
target.close()
PYTHON
{%- elif cookiecutter.database == "postgresql" %}
export PGSERVICEFILE=$private/login PGSERVICE=project
ours="FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')"
tables=$(psql --no-psqlrc --quiet --tuples-only --no-align --command="SELECT count(*) $ours")
((tables == 0)) || [[ $force ]] || refuse "$tables"
pg_restore --list "$backup/database.dump" >/dev/null
# One transaction: all of it, or nothing.
{
    printf '%s\n' "SELECT format('DROP TABLE IF EXISTS %s CASCADE', oid::regclass) $ours \\gexec"
    pg_restore --no-owner --no-privileges --file=- "$backup/database.dump"
} | psql --no-psqlrc --quiet --single-transaction --set=ON_ERROR_STOP=1 --output=/dev/null
{%- else %}
client=("$(command -v mariadb || command -v mysql)" --defaults-extra-file="$private/login" --batch --skip-column-names)
tables=$("${client[@]}" --execute="SELECT count(*) FROM information_schema.tables WHERE table_schema = DATABASE()" "$name")
((tables == 0)) || [[ $force ]] || refuse "$tables"
# MariaDB can't take back a table that is gone: so first that the backup is whole.
gzip --decompress --stdout "$backup/database.sql.gz" | tail -n 1 | grep --quiet '^-- Dump completed'
{
    printf 'SET FOREIGN_KEY_CHECKS = 0;\n'
    "${client[@]}" --execute="SELECT CONCAT('DROP TABLE \`', table_name, '\`;') FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'" "$name"
    gzip --decompress --stdout "$backup/database.sql.gz"
} | "${client[@]}" "$name"
{%- endif %}

for file in "$backup"/*.tar.gz; do
    tar --extract --gzip --file="$file" --directory="$var" --no-same-owner
done
printf 'Restored. Next: manage.py migrate, manage.py taskkit doctor, and start everything.\n'
