# make run     a chat with an agent; sets everything up the first time
# make test    everything the tests need, then the tests
# make faults  kill -9, full disks, a platform at its worst: every fault once
#              (make faults-long SECONDS=3600: seed after seed, for so long)
# make lint    formatting, lint and types only
# make bench   the benchmarks, as one JSON object
# make clean   removes the virtual environment and caches; data/ stays

PYTHON ?= python3
VENV := .venv
# Not the console scripts: in a deep path their first line is longer than a kernel may read.
PY := $(VENV)/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
# Progress for a person, silence for a log.
QUIET := $(shell [ -t 2 ] || echo --quiet)
MAKEFLAGS += --no-print-directory

.PHONY: run test faults faults-long lint bench clean setup setup-dev
.DEFAULT_GOAL := run

run: setup
	@exec $(PY) -m nanotasks up

test: setup-dev lint
	@$(PY) -m pytest -n 2 --dist loadfile

# Three at a time on two cores: these wait more than they compute.
faults: setup-dev
	@$(PY) -m pytest -n 3 --dist loadfile tests/faults

SECONDS := 600
faults-long: setup-dev
	@$(PY) -m tests.faults --guards --seconds $(SECONDS)

lint: setup-dev
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy

bench: setup-dev
	@$(PY) -m tests.benchmarks

clean:
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@find nanotasks container migrations tests -name __pycache__ -prune -exec rm -rf {} +

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

# Words go to stderr: stdout belongs to the replies of `make run`.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "nanotasks needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1 || echo missing)." >&2; \
	  echo "Install a newer one, or name it: make PYTHON=python3.12" >&2; exit 78; }
	@echo "Creating a virtual environment in $(VENV) (once)." >&2
	@$(PYTHON) -m venv $(VENV) >&2 || { rm -rf $(VENV); \
	  echo "Python's venv module does not work here. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 78; }

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing nanotasks and what it needs (once, about a minute)." >&2
	@$(PY) -m pip install $(QUIET) --editable . >&2
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing what the tests need (once, about a minute)." >&2
	@$(PY) -m pip install $(QUIET) --editable '.[dev]' >&2
	@touch $(VENV)/.installed $@
