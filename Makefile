# Two commands do everything on a machine with Python 3.11, git, make and a C compiler:
#   make quickstart    the whole way on real flights
#   make test          the tests
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help setup quickstart test check bench constraints clean

help:
	@echo "make setup        create .venv with the pinned versions"
	@echo "make quickstart   events to five deployments on real flights; writes quickstart/report.html"
	@echo "make test         unit tests, laws, references, faults, stories and doctests"
	@echo "make check        ruff (format, lint), mypy --strict, import layers"
	@echo "make bench        the figures of docs/benchmarks.md"
	@echo "make clean        remove .venv, caches and quickstart/"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing the pinned versions into $(VENV)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --constraint constraints.txt --editable ".[test,check]"
	@touch $@

quickstart: $(READY)
	$(BIN)/millstream quickstart --output quickstart

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m benchmarks

constraints: $(READY)
	{ echo "# The versions every check ran with. Renew: make constraints"; \
	  $(BIN)/python -m pip freeze --exclude-editable | grep -ivE '^(pip|setuptools|millstream)(==| )' | sort -f; } > constraints.txt

clean:
	rm -rf $(VENV) quickstart .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
