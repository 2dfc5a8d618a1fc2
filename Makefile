PYTHON ?= python3
CONCEPT ?= fox
STORE ?= demo-store

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo s3 test slow lint bench train clean

help: ## List the targets
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-8s %s\n", $$1, $$2 }'

setup: $(INSTALLED) ## Create .venv and install the project and its tools (PYTHON=python3.11 picks the interpreter)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make setup: PYTHON=$(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or later is needed," \
	    "for example: make setup PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## Erase CONCEPT (fox) from the bundled model into STORE (demo-store)
	$(BIN)/conceptprune erase $(CONCEPT) --store $(STORE)

s3: setup ## Run a real S3 server on loopback to try --store s3:// with
	@$(BIN)/python -m tests.seaweed --folder s3-data

test: setup ## Run the quick tests
	$(BIN)/python -m pytest

slow: setup ## Run the slow tests
	$(BIN)/python -m pytest -m 'slow and not gpu'

lint: setup ## Check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: setup ## Time the benchmarks
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only

train: setup ## Train the bundled model again (draws emoji from npm packages)
	$(BIN)/python -m demo.training

clean: ## Remove everything that the other targets made
	rm -rf $(VENV) build dist demo-store s3-data .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
