#!/usr/bin/env bash
# Restart workers, beat or relay that run, and whose loop does not turn; {{ cookiecutter.project }}.cron asks each minute.
set -euo pipefail

home=/srv/{{ cookiecutter.project }}
health=${TASKKIT_HEALTH_DIR:-$home/var/health}

# NAME-OF-PROGRAM ROLE [OPTIONS]
look() {
    local program={{ cookiecutter.project }}-$1 pid
    shift
    pid=$(supervisorctl pid "$program") && [[ $pid -gt 0 ]] || return 0
    # It needs a while to start.
    [[ $(ps -o etimes= -p "$pid") -ge 120 ]] || return 0
    # Not while it stops, which may take as long as its task.
    supervisorctl status "$program" | grep --quiet ' RUNNING ' || return 0
    (cd "$home" && .venv/bin/python -m django_taskkit.observability.health "$@" --alive --dir "$health" >/dev/null) ||
        supervisorctl restart "$program"
}

for lane in customers reports geocoding default; do
    look "worker-$lane" worker --name "{{ cookiecutter.project }}-$lane@$(uname -n)"
done
look beat beat
look relay relay
