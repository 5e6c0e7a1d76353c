# Everything here needs only make and Python 3.11 or newer with venv; the first target run makes .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP ?= $(BIN)/python -m pip
STAMP := $(VENV)/.installed
# more arguments for pytest, e.g. make test PYTEST_ARGS="-k breaker"
PYTEST_ARGS ?=
# tests at once; most wait more than they work, those about time want a core each
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test lint check-long bench clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || { $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; } \
		&& $(PYTHON) -m venv $(VENV); }
	@echo "installing into $(VENV), about a minute"
	$(PIP) install --quiet --editable '.[dev]'
	@touch $@

install: $(STAMP) ## only make .venv and install into it

demo: $(STAMP) ## simulator and server in one process; no account, no Redis, no settings
	@$(BIN)/jobnimbus-mcp demo

test: $(STAMP) ## the test suite, six minutes on two cores; tests on a real Redis need redis-server on PATH
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

lint: $(STAMP) ## style, types and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy jobnimbus_mcp
	$(BIN)/lint-imports

check-long: $(STAMP) ## the suite with many more examples, and the tests marked long
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -n $(WORKERS) -m "not alone" --timeout 900 $(PYTEST_ARGS)
	$(BIN)/python -m pytest -m alone --timeout 900 $(PYTEST_ARGS)

bench: $(STAMP) ## every benchmark; needs redis-server on PATH, and installs the caches to compare with
	$(PIP) install --quiet --editable '.[bench]'
	@status=0; for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || status=1; done; exit $$status

clean: ## remove what the targets made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage*
