# What people run. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SCALE ?= 1
RATE ?= 500
SECONDS ?= 20
PROCESSES ?= 4
KAFKA_PORT := $(or $(PROACT_KAFKA_PORT),9092)
PROMETHEUS_PORT := $(or $(PROACT_PROMETHEUS_PORT),9090)
HANDBOOK ?= ../shared/data/handbook

.PHONY: help setup demo demo-learning up down logs events demo-compose roll test test-long test-chaos test-compose test-all simulation chaos chaos-full lint format types train bench bench-compare bench-gate costs parity benchmark-quality docs docs-tables dashboards lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/installed: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Proact needs Python 3.11: install it, or say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "· creating $(VENV) and installing locked dependencies (one to five minutes the first time)" >&2
	@$(PYTHON) -m venv $(VENV)
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --require-hashes --requirement requirements.lock \
	  | awk '/^Collecting/ { printf "  %2d of %d packages: %s\n", ++n, total, $$2; fflush() } /^Installing/ { print "  unpacking"; fflush() }' \
	    total=$$(grep -c '^[a-z].*==' requirements.lock) >&2
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@echo "· compiling kernels (20 s to two minutes)" >&2
	@$(BIN)/python -m services.warm_up || echo "· kernels will be compiled when they are first used" >&2
	@touch $@

setup: $(VENV)/installed ## Create .venv with everything in it

demo: setup ## Show everything: a month of card traffic and live traffic through a real Kafka and Redis
	@$(BIN)/proact demo $(ARGS)

demo-learning: setup ## Show how a model learns a new fraud and goes live while transactions flow: six minutes
	@$(BIN)/proact demo-learning $(ARGS)

up: ## Build the image, start everything in containers, wait until it is healthy; SCALE=3 for three scorers
	@deploy/up $(SCALE)

down: ## Stop the containers; the data stay (ARGS=-v throws them away)
	@docker compose down $(ARGS)

logs: ## Follow the scorers' logs; ARGS="kafka redis" for others
	@docker compose logs --follow --tail 100 $(or $(ARGS),scorer)

events: setup ## Send live traffic to the published Kafka: RATE a second for SECONDS
	@$(BIN)/proact simulate --fresh --rate $(RATE) --seconds $(SECONDS) --kafka-bootstrap-servers 127.0.0.1:$(KAFKA_PORT) $(ARGS)

roll: ## Build the image and replace all services by ones of it, one by one, in order; ARGS=back for the image before
	@deploy/roll $(ARGS)

demo-compose: setup up ## Start the containers, send a month of traffic and some live, and ask Prometheus what happened
	@$(BIN)/proact simulate --fresh --days 30 --kafka-bootstrap-servers 127.0.0.1:$(KAFKA_PORT)
	@$(MAKE) --no-print-directory events SECONDS=75
	@echo "· waiting for Prometheus to have looked" >&2; sleep 6
	@$(BIN)/proact report --prometheus-url http://127.0.0.1:$(PROMETHEUS_PORT)
	@echo "It goes on running: make logs, make events, make down."

test: setup ## Run the tests that are run often, on a real Kafka and a real Redis: ten minutes; ARGS="-k rules" for some
	$(BIN)/python -m pytest --ignore tests/compose --ignore tests/chaos $(or $(ARGS),-m "not long" --numprocesses $(PROCESSES) --dist worksteal)

test-long: setup ## Run those that take whole data sets or need the machine for themselves
	$(BIN)/python -m pytest --ignore tests/compose --ignore tests/chaos -m long $(ARGS)

test-chaos: setup ## Break a real Kafka, a real Redis and scorers in the most telling ways, as a test
	$(BIN)/python -m pytest tests/chaos $(ARGS)

test-compose: setup ## Run the tests of docker-compose.yml, in a project and on ports of their own
	$(BIN)/python -m pytest tests/compose $(ARGS)

test-all: test test-long test-chaos test-compose ## Run all of these

simulation: setup ## Break models of Kafka and Redis in every way; SEED=n replays one schedule
	$(if $(SEED),PROACT_SIMULATION_FIRST=$(SEED) PROACT_SIMULATION_SEEDS=1) $(BIN)/python -m pytest tests/simulation $(if $(SEED),-k random) $(ARGS)

chaos: setup ## Break a real Kafka, a real Redis and three scorers under load, and check: some minutes; ARGS="--seed 7"
	@$(BIN)/python -m tests.chaos $(ARGS)

chaos-full: setup ## The same with every fault: half an hour
	@$(BIN)/python -m tests.chaos --full $(ARGS)

lint: setup ## Check style and layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## Write the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup ## Check types
	$(BIN)/mypy

train: setup ## Train a model from simulated data, beside the live one, which stays live; ARGS="--output models/fraud/v7"
	$(BIN)/proact train $(ARGS)

bench: setup ## Measure throughput, latency, recovery and memory beside a plain worker, some 20 minutes; the last line is JSON
	@$(BIN)/python -m tests.benchmarks bench --partitions 12 $(ARGS)

bench-compare: setup ## Measure revision BASE and the working tree in turn: make bench-compare BASE=HEAD~1 ARGS="--records 300000 --seconds 5 --runs 1"
	@$(BIN)/python -m tests.benchmarks bench-compare $(or $(BASE),HEAD) -- $(ARGS)

bench-gate: setup ## Check that deciding is as many times as quick as the plain way as it was: half a minute
	@$(BIN)/python -m tests.benchmarks bench-gate

costs: setup ## Measure what each part of a decision costs, in microseconds
	@$(BIN)/python -m tests.benchmarks costs $(ARGS)

parity: setup ## Compare features with the Fraud Detection Handbook's, on all of its transactions
	$(BIN)/python -m tests.benchmarks parity $(HANDBOOK) $(ARGS)

benchmark-quality: setup ## Train and test on the handbook's transactions by its protocol; the last line is JSON
	@$(BIN)/python -m tests.benchmarks benchmark-quality $(HANDBOOK) $(ARGS)

docs-tables: setup ## Write the generated tables of docs/ anew
	$(BIN)/python -m services.cli.docs_tables .

$(VENV)/docs/installed: docs/requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "Proact needs Python 3.11: install it, or say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)/docs
	@$(VENV)/docs/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes --requirement docs/requirements.lock
	@touch $@

docs: $(VENV)/docs/installed ## Build docs/ as a site into site/; a dead link fails
	@NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/mkdocs build --strict
	@echo "open site/index.html"

LOCK := $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header
dashboards: setup ## Write Grafana's dashboards and the list of what Prometheus scrapes anew
	$(BIN)/python deploy/grafana/make_dashboards.py
	$(BIN)/python deploy/make_targets.py

lock: setup ## Resolve the dependencies anew into requirements.lock, the image's two lock files and the site's
	$(LOCK) --extra dask --extra dev --extra lake --extra mlflow --extra notebooks --extra stack --extra train --output-file requirements.lock pyproject.toml
	@sed -n 's/^\([A-Za-z0-9_.-]*==[^ ]*\).*/\1/p' requirements.lock > $(VENV)/versions.txt
	$(LOCK) --no-annotate --extra lake --constraint $(VENV)/versions.txt --output-file deploy/requirements.lock pyproject.toml
	$(LOCK) --no-annotate --constraint $(VENV)/versions.txt --output-file deploy/build-requirements.lock deploy/build-requirements.in
	$(LOCK) --no-annotate --output-file docs/requirements.lock docs/requirements.in

clean: ## Stop the embedded stack, remove what make and the commands made here
	-@test -x $(BIN)/proact && $(BIN)/proact stack down
	rm -rf $(VENV) site .proact .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
