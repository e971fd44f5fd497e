# Thin wrappers; what they run is in tox.ini and demo/.

PYTHON ?= python3

# One environment for each supported version of each; `tox` alone runs the whole matrix.
MATRIX = py310-django52-celery55,py311-django52-celery56,py312-django60-celery56,py313-django61-celery57,py314-django61-celery57
# The longest first: they are run side by side.
ENVS = live,databases,lint,types,template,$(MATRIX),browser,live-celery55,live-celery56
# How many environments at a time. Live tests wait more than they compute.
SIDE_BY_SIDE ?= 2
# How many messages each run of the account sends (docs/nothing-lost.md).
SOAK_MESSAGES ?= 20000

TOX_VENV = .tox-venv
# What failed, in all environments, and what passed only when it was run again.
FAILURES = .tox-failures
TOX = $(TOX_VENV)/bin/tox

CHECK_PYTHON = '$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	echo "django-taskkit needs Python 3.10 or newer, and '$(PYTHON)' is not: make PYTHON=/path/to/python3.13 ..." >&2; \
	exit 1; \
}

help: ## say what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile

demo: ## show it at work: a project, its worker, tasks that die; CHECK=1 plays it through and ends
	@$(CHECK_PYTHON)
	@CHECK='$(CHECK)'; exec '$(PYTHON)' demo/run.py $${CHECK:+--check}

test: $(TOX) ## run the tests; ENVS=lint,live chooses, ARGS='-- -k word -x' goes to pytest
	rm -rf build $(FAILURES)
	TASKKIT_TEST_FAILURES='$(CURDIR)/$(FAILURES)' \
	$(TOX) run-parallel --parallel $(SIDE_BY_SIDE) --parallel-no-spinner -e $(ENVS) $(ARGS); \
	status=$$?; if [ -s $(FAILURES) ]; then cat $(FAILURES); fi; exit $$status

lint: $(TOX) ## check rules, layout and types
	$(TOX) run -e lint,types

template: $(TOX) ## the project template, and projects that run in production; ARGS='-- -k mariadb' chooses
	rm -rf build
	$(TOX) run -e template-all $(ARGS)

soak: $(TOX) ## the tests that run for long; SOAK_MESSAGES=2000 sends fewer, ARGS='-- -k redis' chooses
	SOAK_MESSAGES='$(SOAK_MESSAGES)' $(TOX) run -e soak $(ARGS)

clean: ## delete what make, tox and the tools have made
	rm -rf build dist *.egg-info .tox $(TOX_VENV) $(FAILURES) .venv-demo .mypy_cache .pytest_cache .ruff_cache
	find django_taskkit tests demo -name __pycache__ -type d -prune -exec rm -rf {} +

$(TOX):
	@$(CHECK_PYTHON)
	'$(PYTHON)' -m venv $(TOX_VENV)
	$(TOX_VENV)/bin/python -m pip install --quiet 'tox>=4.20' 'tox-uv>=1.20' || { rm -rf $(TOX_VENV); exit 1; }

.PHONY: help demo test lint template soak clean
