# The verbs of the toolkit. `make` alone lists them. Each sets up the environment first if needed.
VENV := .venv
PY := $(VENV)/bin/python

# Programs of two projects may have one name, so mypy sees those of each project by themselves.
PROJECTS := $(patsubst %/configs,%,$(wildcard */configs))

# Arguments: make quickstart TASK=video; make quickstart QUICKSTART_ARGS='train.seed=1'; make test TEST_ARGS='tests/detection -x'
TASK ?= detection
QUICKSTART_ARGS ?=
TEST_ARGS ?=
BENCH_ARGS ?=

# Two OpenMP threads that wait actively are ten times slower as soon as something else uses a core.
export OMP_WAIT_POLICY ?= PASSIVE
export OMP_NUM_THREADS ?= 2
# Packages are installed without bytecode, which is then written by their first import.
unexport PYTHONDONTWRITEBYTECODE
# Spares deepspeed's search for an accelerator, where there is none.
ifeq ($(wildcard /dev/nvidia* /dev/dxg /dev/kfd),)
export DS_ACCELERATOR ?= cpu
endif
# glibc returns large blocks to the system after every step; keeping them saves a third of the time.
KEEP_MEMORY := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_TOP_PAD_=268435456

.PHONY: help setup ready quickstart check test smoke test-slow test-gpu first-gpu attack format bench miniature docs mmcv-ops clean clean-all
.DEFAULT_GOAL := help

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv with everything in it (PYTHON=..., DETECTRON2=... choose other ones)
	@PYTHON='$(PYTHON)' DETECTRON2='$(DETECTRON2)' bash scripts/setup.sh

ready:
	@PYTHON='$(PYTHON)' DETECTRON2='$(DETECTRON2)' bash scripts/setup.sh --if-needed

quickstart: ready ## train and score on demo data; TASK=detection, segmentation, classification, video, clip ...
	@$(KEEP_MEMORY) $(PY) -m eva_command quickstart $(TASK) $(QUICKSTART_ARGS)

check: ready ## lint, format, types, and who may import whom
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m mypy --explicit-package-bases tests benchmarks tools third_party setup.py
	$(foreach p,$(PROJECTS),$(PY) -m mypy --explicit-package-bases $(p)/*.py $(p)/configs &&) true
	$(VENV)/bin/lint-imports --no-logo

test: ready ## all tests but the slow ones and those that need a GPU
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(KEEP_MEMORY) $(PY) -m pytest -n 2 --dist worksteal -m 'not slow and not gpu' $(TEST_ARGS)

smoke: ready ## two minutes of tests that touch every project
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(KEEP_MEMORY) $(PY) -m pytest -n 2 --dist worksteal -m 'smoke and not slow and not gpu' $(TEST_ARGS)

test-slow: ready ## the slow tests
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(KEEP_MEMORY) $(PY) -m pytest -n 2 --dist worksteal -m 'slow and not gpu' $(TEST_ARGS)

test-gpu: ready ## the tests that need a GPU, one by one; GPU_TEST_ARGS='-k attention' chooses some
	$(PY) -m pytest -m gpu tests/gpu $(GPU_TEST_ARGS)

first-gpu: ready ## the first ten minutes on a GPU: 25 checks, those that tell most first; output/first_gpu.json
	@$(PY) tests/gpu/first_gpu.py $(FIRST_GPU_ARGS)

attack: ready ## kill runs of all trainers; several hours, the table of docs/reliability.md
	@set -e; for trainer in pretrain classification video clip detection segmentation mmdetection; do \
	    $(PY) tests/attacks/kills.py $$trainer --kills 50 --in-saves 15; done

format: ready ## rewrite the code in the house format
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff format .

bench: ready ## this toolkit beside its peers, 20 minutes; BENCH_ARGS='--quick --only encoder,scoring' for less
	@$(KEEP_MEMORY) $(PY) benchmarks/bench.py $(BENCH_ARGS)

docs: ready ## build the documentation site in output/site, without a network; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

miniature: ready ## the paper's claim on a small scale, two hours on two cores (docs/miniature.md)
	@$(KEEP_MEMORY) $(PY) benchmarks/miniature/run.py $(MINIATURE_ARGS)

mmcv-ops: ready ## rebuild mmcv with compiled operators (15 minutes or more; nothing needs it)
	@bash scripts/build_mmcv_ops.sh

clean: ## remove caches; runs in output/ and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-all: clean ## remove .venv too, with all that is installed
	rm -rf $(VENV)
