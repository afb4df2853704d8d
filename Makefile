# Each target works on a fresh machine with Python 3.11 to 3.13 and a package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := src tests examples benchmarks docs
# installation is done once, and again when what is asked for changes
READY := $(VENV)/.ready

.PHONY: demo test lint docs teacher bench clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	# torch first, and pinned: a plain newest torch brings gigabytes of CUDA packages
	$(PIP) torch
	$(PIP) --editable ".[train,run,api,dev]"
	touch $(READY)

# a verdict other than PASS (exit codes 3 and 4) is a result, not an error of make
demo: $(READY)
	$(BIN)/potstill run recipes/quickstart.yaml || test $$? -ge 3

test: lint
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/memory.py

docs: $(READY)
	$(BIN)/python docs/make_help.py

teacher: $(READY)
	examples/home-assistant/make_teacher.sh

clean:
	rm -rf runs build dist
