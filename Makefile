# What a developer runs. `make` alone lists the targets. CONTRIBUTING.md says when to use which.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

BIN := .venv/bin
PYTEST := $(BIN)/pytest
# files of tests at a time
WORKERS := 2
QUICK := not slow and not gpu
ONE_MACHINE := tests/unit tests/property tests/interop tests/e2e tests/fault
UV_COMPILE = "$$(tools/setup uv)" pip compile $(UPGRADE) --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header

.PHONY: help setup lock fmt lint type tools charts docs test test-full test-unit test-interop test-fault test-cluster \
	demo bench cluster cluster-down clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## make .venv from the locked requirements (does nothing when that is done)
	@tools/setup

lock: ## lock what pyproject.toml asks for (UPGRADE=--upgrade: all of it to newest)
	$(UV_COMPILE) -o requirements/dev.txt pyproject.toml requirements/demo.in --all-extras --group dev
	$(UV_COMPILE) -o requirements/batch.txt -c requirements/dev.txt pyproject.toml --extra batch --extra webdataset
	$(UV_COMPILE) -o requirements/operator.txt -c requirements/dev.txt pyproject.toml --extra kubernetes
	$(UV_COMPILE) -o requirements/core.txt -c requirements/dev.txt pyproject.toml
	for list in bench/rivals/*.in; do $(UV_COMPILE) $$(grep -o -- --no-deps "$$list") --override bench/rivals/overrides.txt -o "$${list%.in}.txt" "$$list"; done

fmt: setup ## format the code and mend what can be mended
	@$(BIN)/ruff check --fix --quiet --exit-zero .
	@$(BIN)/ruff format .

lint: setup ## style, formatting, layers, links between documents
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@PYTHONPATH=jobs:operator $(BIN)/lint-imports --no-logo pyproject.toml
	@tools/check-links

type: setup ## static types, strictly
	@$(BIN)/mypy

tools: ## build or install the programs that the tests run (once)
	@tools/build-server versitygw >/dev/null
	@tools/build-server toxiproxy >/dev/null
	@tools/build-server helm >/dev/null
	@tools/browser >/dev/null || true # those tests say that they were skipped

charts: setup ## make what is generated of the charts: values.schema.json, README.md
	@$(BIN)/python tools/chart_schema.py

docs: lint ## check the documents (part of lint)

test: lint type tools ## everything a change can break, a whole experiment on a real Kubernetes included
	@$(PYTEST) -n $(WORKERS) -m '$(QUICK)' $(ONE_MACHINE)
	@$(PYTEST) -m 'cluster and not slow' tests/cluster

test-full: lint type tools ## the same, and what takes long
	@$(PYTEST) -m 'not gpu' $(ONE_MACHINE)
	@$(PYTEST) -m cluster tests/cluster

test-unit: setup tools ## unit and property tests
	@$(PYTEST) -n $(WORKERS) -m '$(QUICK)' tests/unit tests/property

test-interop: setup tools ## what other people's programs read of ours
	@$(PYTEST) -n $(WORKERS) -m '$(QUICK)' tests/interop

test-fault: setup tools ## kill, cut off, fill up: all of it
	@$(PYTEST) -m fault tests/fault

test-cluster: setup ## tests on a real Kubernetes: the one of KUBECONFIG, or one made for them
	@$(PYTEST) -m cluster tests/cluster

cluster: setup ## start a Kubernetes cluster for the tests, and leave it up (root; 30 s, or 15 min to build it once)
	@PYTHONPATH=tests/cluster $(BIN)/python -m harness up

cluster-down: setup ## take it down, with all that ran and was stored in it
	@PYTHONPATH=tests/cluster $(BIN)/python -m harness down

demo: setup ## the whole pipeline on a small real model, in minutes
	@$(BIN)/kubesae demo

bench: setup ## measure: make bench NAME=demo prints one JSON row a figure
	@if [[ -z "$(NAME)" ]]; then \
		echo "Say which: make bench NAME=<one of: $(subst _,-,$(patsubst bench/%.py,%,$(wildcard bench/[a-z]*.py)))>" >&2; exit 2; fi
	@PYTHONPATH=tests/support:tests/cluster $(BIN)/python -m bench.$(subst -,_,$(NAME))

clean: ## remove what the tools leave behind, but not .venv
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	@find jobs tests bench tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
