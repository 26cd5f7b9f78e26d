# Every task has one name. `make up` and `make test` are the two that a newcomer needs.
PY := .venv/bin/python
SPEC ?= examples/web.yaml
STATE ?= .state

.PHONY: up setup test lint types bench-http bench-cpu bench-reload bench-scale .bench clean

up: setup               ## set up what is missing and run the example in the foreground
	@.venv/bin/understudy up $(SPEC) --state-dir $(STATE)

setup: .venv/.done      ## set up alone: virtual environment, HAProxy
	@./setup-host haproxy

.venv/.done: pyproject.toml constraints.txt
	@python3 -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

test: setup             ## lint, types and all tests
	@./setup-host test
	@$(MAKE) --no-print-directory lint types
	@$(PY) -m pytest -n 2 --dist loadfile

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

.bench: setup           # what the benches need on top
	@./setup-host bench
	@$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'

clean:                  ## remove what setup made
	rm -rf .venv
