# Every task has one name. `make up` and `make test` are the two that a newcomer needs.
PY := .venv/bin/python
SPEC ?= examples/shop.yaml
STATE ?= .state

SEEDS ?= 1000
FIRST_SEED ?= 1
MOST_SEEDS ?= 2000

.PHONY: up setup test lint types bench-http bench-cpu bench-reload bench-scale bench-postgres .bench prove-guard soak backlog sim \
	sim-bugs clean

up: setup               ## set up what is missing and run the example in the foreground
	@.venv/bin/understudy up $(SPEC) --state-dir $(STATE)

setup: .venv/.done      ## set up alone: virtual environment, HAProxy, PostgreSQL
	@./setup-host up

.venv/.done: pyproject.toml constraints.txt
	@echo "setup: a virtual environment, and Python packages into it (a minute)"
	@python3 -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

test: setup             ## lint, types and all tests
	@./setup-host test
	@$(MAKE) --no-print-directory lint types
	@$(PY) -m pytest -n 2 --no-loadscope-reorder

lint:                   ## style, and the direction of imports
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/lint-imports --no-cache >/dev/null || .venv/bin/lint-imports --no-cache

types:                  ## strict types of src/
	@.venv/bin/mypy

bench-http: .bench      ## a server killed, hung, cut off: ours beside HAProxy, nginx and Envoy (4 minutes; needs root)
	@$(PY) -m bench.http

bench-cpu: .bench       ## CPU time per proxied request, ours beside the same peers (needs root)
	@$(PY) -m bench.cpu

bench-reload: .bench    ## what 20 reloads under load cost the clients (needs root)
	@$(PY) -m bench.reload

bench-scale: .bench     ## 1 000 services of 10 endpoints: applying, one weight, idling (needs root)
	@$(PY) -m bench.scale

bench-postgres: .bench  ## a primary killed, cut off, switched over: ours RUNS times, Patroni PEER_RUNS times; FAULTS (needs root)
	@$(PY) -m bench.postgres --runs $(or $(RUNS),20) --peer-runs $(or $(PEER_RUNS),5) $(FAULTS:%=--fault %)

.bench: setup           # what the benches need on top
	@./setup-host bench
	@$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'

prove-guard: setup      ## every fault of the guard's proof RUNS times (as root all of them), and the worst margins
	@$(PY) -m tests.guard.proof --runs $(or $(RUNS),200)

soak: setup             ## random faults on a three-node PostgreSQL for MINUTES (60), drawn from SEED (needs root)
	@./setup-host test
	@$(PY) -m tests.integration.postgres.soak --minutes $(or $(MINUTES),60) $(SEED:%=--seed %)

backlog: setup          ## a failover while all standbys have MIB (1024) of log that they have not replayed (needs root)
	@./setup-host test
	@BACKLOG_MIB=$(or $(MIB),1024) $(PY) -m pytest tests/integration/postgres/test_faults_data.py -k backlog

sim: .venv/.done        ## SEEDS simulated fault schedules from FIRST_SEED on; VERBOSE=1 prints what happened
	@VERBOSE=$(VERBOSE) $(PY) -m tests.simulation $(SEEDS) $(FIRST_SEED)

sim-bugs: .venv/.done   ## how many seeds it takes to catch each planted bug
	@$(PY) -m tests.simulation.planted $(MOST_SEEDS)

clean:                  ## remove what setup made
	rm -rf .venv
