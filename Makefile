# Every target works from a fresh clone: the environment is made on first use.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
# One thread per process: tests start processes of their own, and more threads than cores only wait for each other.
export OMP_NUM_THREADS ?= 2
# Tests run in as many processes as there are cores; those that share something costly stay in one.
WORKERS := -n logical --dist loadgroup --no-loadscope-reorder

.PHONY: help setup demo test check fast bench proof clean colossalai colossalai-test

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[run,dev]'
	@touch $(STAMP)

setup: $(STAMP)  ## Make the environment in .venv

demo: setup  ## Make clips, train a tiny autoencoder and a tiny denoiser, sample (CPU, a few minutes)
	$(BIN)/osora demo run

test: setup  ## Run the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests $(WORKERS)

fast: setup  ## Run the unit tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit $(WORKERS)

check: setup  ## Lint, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Each prints ratios of one run, and exits with 1 where a bound is missed; benchmarks.gpu and train_gpu are for a machine with one.
BENCHMARKS := meta train_step mmdit config plan buckets loader cache sample vae
PROOFS := meta_many parallel_equality kill_ranks learn_shapes

bench: setup  ## Run the benchmarks and print their ratios
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done

proof: setup  ## Run what takes too long for a test: 20,000 files, every way of sharing out, 20 killed jobs, learning from nothing
	@for name in $(PROOFS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done

colossalai: setup  ## Add ColossalAI, without the old torch and transformers that it pins
	$(BIN)/python -m pip install --quiet --no-deps -r colossalai.txt

colossalai-test: colossalai  ## Compare ColossalAI's engine with one process
	$(BIN)/python -m pytest tests/distributed/test_colossalai.py -rA

clean:  ## Remove what the targets made
	rm -rf .venv demo learn outputs samples .mypy_cache .ruff_cache
