# Two commands set everything up on a machine that has only Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed

.PHONY: demo test lint types unit accuracy figure refresh bench-start bench-search bench-cross-validation clean

demo: $(SETUP)
	$(BIN)/meshwright plan llama-3.1-70b dgx-h100:64 --global-batch 1024 --sequence-length 8192 -o demo-plan.yaml

test: lint types unit

$(SETUP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=24" "setuptools>=77"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]" --config-settings editable_mode=strict
	touch $(SETUP)

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(SETUP)
	$(BIN)/mypy

unit: $(SETUP)
	$(BIN)/python -m pytest -n 2

accuracy: $(SETUP)
	$(BIN)/meshwright accuracy catalog/measurements/*.yaml

# The figure that the README shows.
figure: $(SETUP)
	$(BIN)/meshwright accuracy catalog/measurements/*.yaml --plot docs/accuracy.svg > /dev/null

bench-start: $(SETUP)
	$(BIN)/python tests/bench_start.py

# Times searches against their bars, and draws how they grow.
bench-search: $(SETUP)
	$(BIN)/python tests/bench_search.py docs/search.svg

# Fits the constants without each source of measurements, writes them to catalog/cross_validation.yaml: minutes.
bench-cross-validation: $(SETUP)
	$(BIN)/python tests/bench_cross_validation.py

# Golden plans, the schema of plans, the README's output and table, and how far missed bars are missed.
refresh: $(SETUP)
	$(BIN)/python tests/refresh.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
