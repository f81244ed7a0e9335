# Everything a newcomer, a contributor and CI need. `make demo` and `make test` work on a fresh machine.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
BUNDLE := build/emoji
# At most two: each worker builds bundles, and the tests load a PyTorch reference beside ours.
WORKERS ?= 2
# What runs on a machine with a GPU: nothing is installed there, see docs/gpu.md.
GPU_PYTHON ?= python3
ON_GPU := PYTHONPATH=$(CURDIR)/.types$(if $(PYTHONPATH),:$(PYTHONPATH)) $(GPU_PYTHON) -P -m

.PHONY: help install demo test test-slow test-explore test-gpu check format bench bench-full bench-gpu clean
.DEFAULT_GOAL := help

help:
	@echo "make demo          build the emoji bundle, draw pictures, compare with diffusers"
	@echo "make test          run the tests"
	@echo "make test-slow     the tests that take minutes or many gigabytes"
	@echo "make test-explore  the tests of properties, on many more examples, new ones every time"
	@echo "make test-gpu      the tests that need an NVIDIA GPU"
	@echo "make check         ruff, mypy, the Dockerfile, packaging"
	@echo "make bench         LatentRT beside diffusers: a report, and a line of JSON"
	@echo "make bench-full    every suite, beside every baseline"
	@echo "make bench-gpu     models in full size on this machine's GPU, beside diffusers eager and compiled"
	@echo "make format        format the code"
	@echo "make clean         remove what the others made"

install: $(VENV)/.installed

# Some systems ship Python without ensurepip; virtualenv then makes the environment.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "LatentRT needs Python 3.11 or newer; set PYTHON=... (found $$($(PYTHON) --version))"; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV) && $(PYTHON) -m pip install --quiet --target build/virtualenv virtualenv && \
		PYTHONPATH=build/virtualenv $(PYTHON) -m virtualenv --quiet $(VENV); }
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/python -P -m latentrt.benchmarks.demo examples/emoji $(BUNDLE) --out build/demo

test: install
	$(BIN)/pytest --numprocesses $(WORKERS)

test-slow: install
	$(BIN)/pytest -m slow

test-explore: install
	$(BIN)/pytest -p no:xdist --hypothesis-profile=explore tests/runtime/samplers/test_properties.py

# Only files with such tests: the others import what need not be installed there.
GPU_TESTS = tests/kernels/gpu $(shell grep -rl --include='test_*.py' 'mark\.gpu' tests)

test-gpu:
	$(ON_GPU) pytest -p no:cacheprovider -W default -m gpu --junitxml=$${LATENTRT_GPU_ANSWERS:-build/gpu-tests}/tests.xml $(GPU_TESTS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint docker/Dockerfile
	rm -rf build/dist
	$(BIN)/python -P -m build --outdir build/dist .
	$(BIN)/twine check --strict build/dist/*

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/latentrt build-engines examples/emoji --out $(BUNDLE)
	$(BIN)/latentrt bench $(BUNDLE) --reference examples/emoji --out build/report
	$(BIN)/latentrt bench-samplers

# Every suite, beside every baseline. Those that need versions of their own are installed in environments of their own;
# one that cannot be installed is absent from the report, which says so.
bench-full: install
	$(BIN)/latentrt build-engines examples/emoji --out $(BUNDLE)
	$(BIN)/latentrt build-engines examples/emoji --out $(BUNDLE)-fp16 --precision fp16
	-$(BIN)/latentrt bench setup optimum-onnx
	-$(BIN)/latentrt bench setup openvino
	$(BIN)/latentrt bench $(BUNDLE) --reference examples/emoji --out build/report --suite all --side all \
		--also fp16=$(BUNDLE)-fp16 --size 128x128 --size 160x96 --size 96x160 --steps 20 --steps 4 --steps 50 \
		--guidance-scale 5 --guidance-scale 1 --images 1 --images 2 --images 4 --judge examples/emoji/training --runs 30 --cold-runs 6

bench-gpu:
	$(ON_GPU) latentrt.runtime.cli.main bench gpu --out build/gpu

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
