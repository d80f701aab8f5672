# Two commands set everything up on a machine that has only Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed
# The launchers that plans are emitted for, which the planner itself doesn't need.
TARGETS_VENV := .venv-targets
TARGETS := $(TARGETS_VENV)/.installed

.PHONY: demo test test-targets lint types unit accuracy figure refresh bench-start bench-search bench-experts bench-offload bench-sequences bench-mixed bench-cross-validation clean

demo: $(SETUP)
	$(BIN)/meshwright plan llama-3.1-70b dgx-h100:64 --global-batch 1024 --sequence-length 8192 -o demo-plan.yaml

test: lint types unit

$(SETUP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=24" "setuptools>=77"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]" --config-settings editable_mode=strict
	touch $(SETUP)

# Emitted files under the parsers of the launchers themselves. Those that no registry has are read where they are:
# MEGATRON_LM, MEGATRON_LM_0_12, MEGATRON_BRIDGE (with its submodules) and NANOTRON name checkouts.
test-targets: $(TARGETS)
	$(TARGETS_VENV)/bin/python -m pytest tests/targets

$(TARGETS): pyproject.toml tests/targets/requirements.txt
	$(PYTHON) -m venv $(TARGETS_VENV)
	$(TARGETS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=24" "setuptools>=77" wheel
	$(TARGETS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/targets/requirements.txt
	$(TARGETS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable . --config-settings editable_mode=strict
	touch $(TARGETS)

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

# Expert placements against their bars, and the balancer that engines ship beside them.
bench-experts: $(SETUP)
	$(BIN)/python tests/bench_experts.py

# Splits of sequences against their bars, with Megatron-Core's and FlexSP's beside them: minutes.
bench-sequences: $(SETUP)
	$(BIN)/python tests/bench_sequences.py --flexsp 30

# Offload splits against their bars, published optimizer steps, and systems without a plan.
bench-offload: $(SETUP)
	$(BIN)/python tests/bench_offload.py

# Plans for mixed clusters, replans and reshards against their bars.
bench-mixed: $(SETUP)
	$(BIN)/python tests/bench_mixed.py

# Fits the constants without each source of measurements, writes them to catalog/cross_validation.yaml: minutes.
bench-cross-validation: $(SETUP)
	$(BIN)/python tests/bench_cross_validation.py

# Golden plans, the schema of plans, the README's output and table, and how far missed bars are missed.
refresh: $(SETUP)
	$(BIN)/python tests/refresh.py

clean:
	rm -rf $(VENV) $(TARGETS_VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
