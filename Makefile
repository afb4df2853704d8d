# Each target works on a fresh machine with Python 3.11 to 3.13 and a package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PIP := $(BIN)/python $(PIP_INSTALL)
SOURCES := src tests examples benchmarks docs
# installation is done once, and again when what is asked for changes
READY := $(VENV)/.ready
# the benchmarks' peers bring much, so they have a venv of their own
BENCH := .bench-venv
BENCH_READY := $(BENCH)/.ready

.PHONY: demo test fuzz lint docs tutorial teacher base bench clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	# torch first, and pinned: a plain newest torch brings gigabytes of CUDA packages
	$(PIP) torch
	$(PIP) --editable ".[train,run,api,serve,sign,dev]"
	touch $(READY)

$(BENCH_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python $(PIP_INSTALL) --upgrade pip
	$(BENCH)/bin/python $(PIP_INSTALL) torch
	$(BENCH)/bin/python $(PIP_INSTALL) --editable ".[train,run,bench]"
	touch $(BENCH_READY)

# a verdict other than PASS (exit codes 3 and 4) is a result, not an error of make
demo: $(READY)
	$(BIN)/potstill run recipes/quickstart.yaml || test $$? -ge 3

test: lint
	# one process per core; a file's tests stay together, because they share fixtures
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

# hostile inputs of every kind; about ten minutes on two cores
fuzz: $(READY)
	PYTHONPATH=tests $(BIN)/python -m fuzz --inputs 100000

lint: $(READY)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

# for an idle machine; benchmarks/README.md has each by itself
bench: $(BENCH_READY)
	mkdir -p runs/bench
	for name in memory prefix targets loss step quality equal_seconds; do \
		$(BENCH)/bin/python benchmarks/$$name.py --json runs/bench/$$name.json || exit 1; \
	done

docs: $(READY)
	$(BIN)/python docs/make_help.py
	$(BIN)/python docs/make_artifacts.py

# runs the commands of docs/tutorial.md and writes their output into the page; takes minutes
tutorial: $(READY)
	$(BIN)/python docs/make_tutorial.py

teacher: $(READY)
	examples/home-assistant/make_teacher.sh

# the quickstart's student before training; two hours on one core
base: $(READY)
	examples/home-assistant/make_base.sh

clean:
	rm -rf runs build dist
