# CareFlow Pulse. `make demo` and `make test` need Python 3.11+, make and git, and set up the rest themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
LOCK   := requirements/dev.txt
# Two workers suit two cores; a test file stays on one worker so that its servers start once.
PYTEST_ARGS ?= -n 2 --dist loadfile

.PHONY: demo test lint up bench images lock faults day clean help

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

$(VENV)/.ready: $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "CareFlow Pulse needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/.ready ## Run a hospital's morning round, end to end, on this machine
	$(BIN)/careflow demo

test: $(VENV)/.ready ## Run the tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.ready ## Check style, types and the walls between the parts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

up: $(VENV)/.ready ## Start everything and keep it running
	$(BIN)/careflow up

faults: $(VENV)/.ready ## Kill processes at random moments, many times (KILLS=300)
	CAREFLOW_TEST_KILLS=$(or $(KILLS),300) $(BIN)/python -m pytest tests/faults -m "long or not long" -n 0 --timeout 0

day: $(VENV)/.ready ## Live a day of two hospitals in the cloud's shape, with kills all through it (PATIENTS=10000 KILLS=60)
	CAREFLOW_TEST_PATIENTS=$(or $(PATIENTS),10000) CAREFLOW_TEST_DAY_KILLS=$(or $(KILLS),60) \
	  $(BIN)/python -m pytest tests/faults/test_day.py -s -n 0 --timeout 0

bench: $(VENV)/.ready ## Measure planning, lifecycles, the scheduler and start-up beside their peers
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	$(BIN)/python -m bench

images: $(VENV)/.ready ## Build both agents' images and run them, without an engine (root; buildah, runc, debootstrap)
	$(BIN)/python -m pytest tests/acceptance/test_images.py -m long -n 0 --timeout 0 -rs

lock: ## Renew the hash-pinned requirements (asks the package index; writes no address of one)
	$(PYTHON) tools/lock.py

clean: ## Remove the virtual environment, caches and local data
	rm -rf $(VENV) careflow-data .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache src/*.egg-info
