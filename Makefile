# make setup | demo | test | test-cpus | lint | docs | wheel | bench | fuzz | soak    all but the first run setup themselves
#   make test PYTHON=python3.12     another interpreter (3.10 or newer)
#   make setup VENV=/tmp/venv       another place for the virtual environment
#   make setup TORCH_INDEX=ADDRESS  a package index for torch, e.g. the one for CPU-only builds (see pytorch.org)
#   make fuzz CASES=5000 SEED=7     more hostile inputs, and others (tests/hostile)
#   make soak KILLS=500 SEED=7      more kills at random moments; the seed that a failure names repeats it (tests/kill)

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
JOBS ?= 2
CASES ?= 1000
SEED ?= 0
KILLS ?= 50
SITE ?= site

BIN := $(VENV)/bin
DONE := $(VENV)/.s2f-rl-installed
PIP := $(BIN)/python -m pip install --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-cpus lint format docs wheel bench fuzz soak

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -6

setup: $(DONE)

$(DONE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "error: $(PYTHON) is older than Python 3.10; name a newer one with PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@# torch first and alone: a resolver that meets it through torchrl may pick another build
	$(PIP) -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) -c constraints.txt -e '.[demo,render,report,align,export,docs,dev]'
	@touch $(DONE)

demo: setup
	$(BIN)/python recipes/demo.py

# one thread per test process: on the small matrices of the tests more threads only wait for each other
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

# the numeric tests with the instructions of older processors; `make test` runs them with this one's own
NUMERIC := tests/losses tests/models tests/metrics tests/rewards tests/envs tests/data/test_mel.py \
	--ignore-glob='*training.py' --ignore=tests/rewards/training --ignore=tests/rewards/calibration/test_report.py \
	--ignore=tests/rewards/model/test_hub_folder.py --ignore=tests/metrics/test_plausibility.py
test-cpus: setup
	@code=0; for cpu in default avx2; do \
		echo "== ATEN_CPU_CAPABILITY=$$cpu"; \
		ATEN_CPU_CAPABILITY=$$cpu OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) $(NUMERIC) || code=1; \
	done; exit $$code

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# the site of the documents, in site/; opens from disk and loads nothing from a network
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir $(SITE)

# source distribution and wheel, and work with the wheel in an empty environment (minutes: it installs torch)
wheel: setup
	PYTHON=$(PYTHON) TORCH_INDEX=$(TORCH_INDEX) .ci/wheel $(VENV)

bench: setup
	$(BIN)/python benchmarks/speed/run.py --page docs/speed.md \
		$(if $(wildcard checkpoints/demo/reward),--reward checkpoints/demo/reward --corpus data/demo)

fuzz: setup
	$(BIN)/python tests/hostile/harness.py --cases $(CASES) --seed $(SEED)

# runs killed (SIGKILL) at random moments and resumed must end as unbroken ones, bit by bit; full and read-only disks
soak: setup
	OMP_NUM_THREADS=1 S2F_RL_KILLS=$(KILLS) S2F_RL_SEED=$(SEED) $(BIN)/python -m pytest -n $(JOBS) tests/kill tests/kill/soak.py
