# Two commands for a newcomer: `make demo` (the main job, about a quarter of an hour) and `make test`.
# Both set themselves up in .venv; PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
READY := $(VENV)/.ready

.PHONY: demo test lint types unit mutants bench faults setup clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,documents,qlora,tensorboard,dev]'
	$(BIN)/python -c "from pathlib import Path; Path('$(READY)').touch()"

demo: $(READY)
	$(BIN)/tutelage fetch smollm2
	$(BIN)/tutelage plan recipes/specialise.yaml --workspace demo --prepare
	$(BIN)/tutelage run recipes/specialise.yaml --workspace demo
	$(BIN)/tutelage report --workspace demo

test: lint types unit

lint: $(READY)
	$(BIN)/ruff check src tests tools benchmarks
	$(BIN)/ruff format --check src tests tools benchmarks
	$(BIN)/python tools/mutate.py --check
	$(BIN)/python tools/status.py --check
	$(BIN)/python tools/method_pages.py --check
	$(BIN)/python tools/speed.py --check

types: $(READY)
	$(BIN)/mypy

# Two processes of one thread each: half the time of one with two, since tiny models have little to share out.
unit: export OMP_NUM_THREADS = 1
unit: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

mutants: $(READY)
	$(BIN)/python tools/mutate.py --remember

# Beside other tools, which are installed first; the two sweeps at its end take hours and go on where they were cut off.
bench: $(READY)
	$(BIN)/python -m benchmarks.peers
	$(BIN)/tutelage fetch smollm2
	$(BIN)/python -m benchmarks

# Kills, full disks, damage, fuzzing and attacks at length (three hours with JOBS=2); `make test` holds the short form.
# SEED draws the same again.
JOBS ?= 2
KILLS ?= 50
FUZZ_SECONDS ?= 600
SEED ?= $(shell $(PYTHON) -c "import random; print(random.randrange(10**6))")
faults: export OMP_NUM_THREADS = 1
faults: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist load --maxschedchunk 1 --kills $(KILLS) --fuzz-seconds $(FUZZ_SECONDS) \
		--fault-seed $(SEED) --fault-summary benchmarks/results/faults.json tests/faults tests/fuzz tests/security

clean:
	rm -rf $(VENV) demo .pytest_cache .ruff_cache .mypy_cache
