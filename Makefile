# Every target makes what it needs by itself: the Python packages in .venv, the rest under .cache.
# MEDIAD_CORE=require|auto|python says whether the core is compiled; PYTHON which Python is taken.

PYTHON ?= python3
BIN := .venv/bin

# One stamp per choice of core, so that another choice installs again.
VENV := .venv/installed-$(or $(MEDIAD_CORE),auto)
CORE_SOURCES := $(foreach type,pyx pxd pxi h,$(wildcard src/mediad/*/*.$(type)))

.PHONY: help venv demo test test-asterisk test-faults test-load soak deps-asterisk bench bench-quick
.PHONY: lint format clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 24

venv: $(VENV) ## Set up .venv; the other targets do it when they need it

$(VENV): pyproject.toml .ci/venv $(CORE_SOURCES)
	@PYTHON="$(PYTHON)" .ci/venv
	@touch $@

demo: $(VENV) ## Hear a whole call: caller, mediad and agent, without Asterisk
	$(BIN)/mediad demo

test: $(VENV) ## Run the unit and integration tests
	$(BIN)/pytest

test-asterisk: $(VENV) ## Run the tests with a real Asterisk
	$(BIN)/pytest tests/asterisk

test-faults: $(VENV) ## Break every connection and program around mediad; write README's table
	$(BIN)/pytest tests/faults
	$(BIN)/python -m tests.faults.table

test-load: $(VENV) ## Deliver 500 webhooks a second for a minute, with both databases
	MEDIAD_LOAD_S=60 $(BIN)/pytest -s tests/integration/webhooks/test_load.py

soak: $(VENV) ## Random calls and faults for MINUTES=20; nothing may be left over
	MINUTES="$(or $(MINUTES),20)" $(BIN)/pytest -s tests/soak

bench: $(VENV) ## Measure against the C floor and the peers; takes most of an hour
	$(BIN)/python -m bench.run
	$(BIN)/python -m bench.store --write
	$(BIN)/python -m bench.pipeline --write
	$(BIN)/python -m bench.api --write

bench-quick: $(VENV) ## The same in short, under 90 s
	$(BIN)/python -m bench.run --quick

deps-asterisk: ## Get a real Asterisk for the tests; needs root, once
	tests/asterisk/install.sh

lint: $(VENV) ## Check style, types and the direction of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV) ## Format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## Remove everything made here but the real Asterisk
	rm -rf .venv .cache/debian build dist src/*.egg-info .coverage .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	rm -f src/mediad/*/_*.c src/mediad/*/_*.so demo*.wav
	find src tests -name __pycache__ -prune -exec rm -rf {} +
