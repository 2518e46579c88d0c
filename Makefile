# Each target works by itself on a fresh clone: it makes .venv when there is none.
#
#   PYTHON=python3.12 make test         another interpreter for the environment
#   PIP_FLAGS=... make test             further options for pip, such as the index of a CPU-only torch
#   DEMO_FLAGS="--epochs 2" make demo   further options for the demo's `resurge train`

PYTHON     ?= python3
PIP_FLAGS  ?=
DEMO_FLAGS ?=
TEST_FLAGS ?=

VENV := .venv
BIN  := $(VENV)/bin

.PHONY: help demo test test-all lint format clean

help:
	@echo "make demo    train, evaluate and explain a small ResNeSt on handwritten digits; prints where the report is"
	@echo "make test    run the tests"
	@echo "make test-all  run the slow tests too; about three quarters of an hour"
	@echo "make lint    ruff, mypy, import-linter"
	@echo "make format  let ruff rewrite what it can"
	@echo "make clean   remove caches, builds and runs/demo; the environment stays (rm -r $(VENV))"

demo: $(VENV)/.runtime
	$(BIN)/resurge train --recipe digits --data digits --out runs/demo --overwrite $(DEMO_FLAGS)

# The networks of the tests are tiny: a process a core with one thread each is faster than threads.
test: $(VENV)/.dev
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n logical --dist worksteal $(TEST_FLAGS)

test-all: $(VENV)/.dev
	$(MAKE) test TEST_FLAGS="--slow $(TEST_FLAGS)"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist runs/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks docs examples -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say which dependencies are installed; the environment with the tests' contains the demo's.
$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev,export,app]'
	touch $(VENV)/.runtime $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "resurge needs Python 3.10 or later: PYTHON=python3.12 make ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) 'pip>=23.1'
