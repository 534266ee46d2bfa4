# The two commands of the README are `make demo` and `make test`; everything else is a part of them.
PY     := .venv/bin/python
UV     := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
PYTHON ?= python3
DEVICE ?= cpu
WORKERS ?= 0

.PHONY: help setup demo test lint base bench gpu-check tables notebooks lock wheel clean

help:            ## show this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

setup: .venv/ready  ## create .venv from the lock file (gets uv through pip where it is absent)

.venv/ready: requirements.lock pyproject.toml
	@command -v $(UV) >/dev/null || { $(PYTHON) -m venv .uv && .uv/bin/pip install uv; }
	$(UV) venv --allow-existing --python '>=3.11' .venv
	$(UV) pip sync --python $(PY) --require-hashes --compile-bytecode requirements.lock
	$(UV) pip install --python $(PY) --no-deps --no-build-isolation --offline -e .
	@touch $@

demo: setup      ## train the demo sweep on this machine, collect its table and plot
	$(PY) -m segsweep -m +sweep=demo
	$(PY) -m segsweep collect

test: setup      ## run all tests; those of SLURM begin early, as they wait most
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist loadscope --no-loadscope-reorder

lint: setup      ## ruff and pyright
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright

base: setup      ## pretrain the tiny base models again (weights that ship with the package)
	$(PY) scripts/pretrain_tiny.py --model maskdino_tiny
	$(PY) scripts/pretrain_sam.py
	$(PY) scripts/pretrain_tiny.py --model seem_tiny --device $(DEVICE) --workers $(WORKERS)
	for model in vit_tiny samenc_tiny swin_tiny; do \
	  $(PY) scripts/pretrain_heads.py --model $$model --device $(DEVICE) || exit 1; done

bench: setup     ## measure speed and memory side by side with the alternatives
	$(PY) -m benchmarks

gpu-check: setup ## measure on a GPU, at most eight minutes, into gpu_check.json
	$(PY) -m benchmarks.gpu_check

tables: setup    ## rebuild tables and figures from results/
	$(PY) -m segsweep collect

notebooks: setup ## run the notebooks again and keep what they show (some minutes)
	$(PY) scripts/remake_notebooks.py

lock:            ## resolve requirements.lock again
	$(UV) pip compile -q pyproject.toml --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header -o requirements.lock

wheel: setup     ## build the wheel into dist/
	$(PY) -m hatchling build -t wheel

clean:           ## remove the environment and caches, keep results/
	rm -rf .venv .uv dist build .pytest_cache .ruff_cache
