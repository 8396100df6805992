# `make help` lists the targets. Everything runs in .venv, which is made once and renewed when the pins change.
#   PYTHON=python3.12        another Python (3.10 or newer)
#   VENV=path                another folder for the environment
#   ARM64=path               where test-arm64 keeps its root file system
#   WHEELS='--python 3.11'   for which machines `make wheelhouse` gathers; default: both JetPacks
#   PIP_ARGS='...'           more arguments for pip, such as an index of CPU-only torch wheels

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
PIP_ARGS ?=
WHEELS ?=
ARM64 ?= /var/tmp/hrm-edge-arm64

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --constraint constraints.txt $(PIP_ARGS)

.DEFAULT_GOAL := help
.PHONY: help venv train-venv quickstart trm test test-ci test-slow test-avx2 test-x86 test-arm64 check format wheelhouse dist docs clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Beside the environment, not in it: it asks for an older tensorrt-rtx than ours. One test converts with it, with no GPU.
TORCH_TENSORRT := torch-tensorrt-rtx==2.13.0 dllist==2.0.0 psutil==7.2.2

# The build backends come first, pinned like the rest, so that nothing is built in an unpinned environment.
$(VENV)/.installed: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "hrm-edge needs Python 3.10 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(PIP) hatchling editables setuptools wheel
	$(PIP) --no-build-isolation --editable '.[train,export]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --no-build-isolation --editable '.[dev,digits,tensorboard,web,rtx,fused,lean,openvino,report,gpu]'
	$(PIP) --no-deps --upgrade --target $(VENV)/torch-tensorrt $(TORCH_TENSORRT) || \
		echo "no torch-tensorrt-rtx for this Python and machine: its conversion test skips" >&2
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-dev
	$(PIP) --no-build-isolation --editable '.[docs]'
	@touch $@

venv: $(VENV)/.installed-dev ## make the environment with everything that development needs

train-venv: $(VENV)/.installed ## make the environment with what training and exporting need

quickstart: $(VENV)/.installed ## the whole pipeline on a small puzzle: data, train, export, bench, solve (minutes on a CPU)
	PATH="$(abspath $(BIN)):$$PATH" scripts/quickstart.sh

trm: $(VENV)/.installed ## the same pipeline with a small TRM, whose positions are mixed by an MLP (minutes on a CPU)
	PATH="$(abspath $(BIN)):$$PATH" scripts/quickstart.sh recipes/mini-sudoku_trm-mixer.yaml build/trm

# A process more than cores, for many tests wait for a program or a clock, but no more than memory is usual for: each
# loads torch. Only here: a plain pytest stays in one process, where a debugger stops and output is seen. A worker takes
# over tests of another that has more left. Hundreds of tests start Python: its bytecode is kept even where the
# environment says otherwise.
WORKERS := $(shell cores=$$(nproc 2>/dev/null || sysctl -n hw.logicalcpu 2>/dev/null || echo 2); \
	echo $$((cores < 8 ? cores + 1 : 8)))
test: $(VENV)/.installed-dev ## the tests that need no special hardware, on all cores
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

test-ci: $(VENV)/.installed-dev ## what CI runs beside: conversions and builds without a GPU, the GPU day's rehearsal (2 minutes)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal -m ci

test-slow: $(VENV)/.installed-dev ## the tests that take minutes
	$(BIN)/python -m pytest -m "slow and not gpu and not trt and not jetson"

test-avx2: $(VENV)/.installed-dev ## `make test` as on a processor that has AVX2 and nothing beyond, at full speed
	scripts/held_to_avx2.sh $(MAKE) test

test-x86: $(VENV)/.installed-dev ## INT8 parity as a Haswell (AVX2) and a Nehalem (SSE) compute it, by qemu-user (10 minutes)
	$(BIN)/python -m pytest -m slow tests/runtime/test_imitated.py

test-arm64: $(VENV)/.installed-dev ## a Debian arm64 root under qemu-user: setup, doctor, solve, bench (as root; 15 minutes or more)
	PATH="$(abspath $(BIN)):$$PATH" scripts/arm64_root.sh $(ARM64)
	$(BIN)/python -m pytest -m slow tests/jetson/test_arm64.py --arm64-root $(ARM64)/root

check: $(VENV)/.installed-dev ## lint, format, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

format: $(VENV)/.installed-dev ## fix what the linter and the formatter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Its own small environment: what gathers the wheels needs no torch. uv resolves for another machine than this one.
build/wheelhouse-venv/.installed: pyproject.toml constraints.txt
	test -x $(@D)/bin/python || "$(PYTHON)" -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install --constraint constraints.txt $(PIP_ARGS) \
		hatchling editables click uv
	@touch $@

wheelhouse: build/wheelhouse-venv/.installed ## the edge part's wheels for boards without internet, in build/wheelhouse
	PATH="$(abspath build/wheelhouse-venv/bin):$$PATH" PYTHONPATH=. build/wheelhouse-venv/bin/python \
		scripts/wheelhouse.py --out build/wheelhouse $(WHEELS)

dist: $(VENV)/.installed-dev ## a wheel and a source release in dist/, checked by twine
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist -t sdist -t wheel
	$(BIN)/python -m twine check --strict dist/*

docs: $(VENV)/.installed-docs ## the documentation site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## remove what was built (not the environment)
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## remove the environment too
	rm -rf $(VENV)
