# make demo   sets everything up and runs the main job on the sample data, on both backends
# make test   sets everything up and runs the tests
# make venv   sets up all but Horovod; quick when nothing changed
# make horovod   sets up everything, with Horovod for runs of several processes; its build takes minutes, once
# make results DATA=FOLDER   measures README's tables again (docs/results.md); takes hours
# make lock   requirements/*.txt (versions and hashes of all that make venv installs) and docs/licenses.md, after new pins
# make fuzz   damages the files that every reader reads, for ten minutes (FUZZ_MINUTES=...)
# make shapes   installs every extra alone, into environments of its own, and runs a small job in each; takes minutes
# make optimum   an environment with optimum in build/optimum, and the proof that it runs what export/ writes
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# UNLOCKED=1 installs by version alone, for a registry that serves other files than requirements/ has hashes of.
UNLOCKED ?=
# The interpreters that `make lock` writes a file of hashes for.
LOCK_PYTHONS ?= python3.11 python3.12
FUZZ_MINUTES ?= 10

.PHONY: demo test lint venv horovod results optimum lock fuzz shapes clean

demo: venv
	$(BIN)/python -m benchmarks.demo

# One process per core, at most four, since each takes 2 GB; threads of their own would only wait for each other.
test: venv horovod
	$(MAKE) --no-print-directory lint
	OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

venv: $(VENV)/ready

# Asked every time: only the script knows all that the installed Horovod depends on. It leaves $(VENV)/horovod-ready.
horovod: venv
	$(BIN)/python -m install.horovod_install

results: venv
	$(BIN)/python -m benchmarks.results_table --measure $(addprefix --data=,$(DATA)) $(addprefix --pretrained=,$(PRETRAINED))

optimum: venv
	$(BIN)/python -m install.optimum_install
	$(BIN)/python -m pytest tests/export/test_export_optimum.py

$(VENV)/ready: pyproject.toml Makefile install/environment.py $(wildcard requirements/*.txt)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m install.environment $(if $(UNLOCKED),--unlocked)
	touch $@

# After a change of pins: all versions and hashes anew, then the page of licenses from what is installed.
lock:
	$(PYTHON) -m install.lock $(LOCK_PYTHONS)
	$(MAKE) --no-print-directory venv
	$(BIN)/python -m install.licenses

fuzz: venv
	FUZZ_MINUTES=$(FUZZ_MINUTES) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz

shapes:
	$(PYTHON) -m install.shapes

clean:
	rm -rf $(VENV) build *.egg-info
