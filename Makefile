# Needs Python 3.11 or newer, git and make. Everything else goes into .venv, nothing outside it.

PYTHON ?= python3
REPO ?= .
PIP_ARGS ?=
PYTEST_ARGS ?=

export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1

ifeq ($(REPO),.)
RUN := quickstart
QUICKSTART := recipes/quickstart.yaml
else
RUN := quickstart-of-$(shell cd "$(REPO)" && basename "$$PWD")
QUICKSTART := recipes/quickstart.yaml "corpus.sources.0.git=$(REPO)" "name=$(RUN)"
endif

.DEFAULT_GOAL := help
.PHONY: help quickstart control tiny-base test soak lint bench clean

help:
	@echo "make quickstart            tune a tiny model and measure it, on this machine's processor"
	@echo "make quickstart REPO=PATH  the same on a git repository of yours"
	@echo "make control               the same for an adapter trained on other code; takes REPO"
	@echo "make tiny-base             train that tiny model again; an hour, fetches 130 MB of code"
	@echo "make test                  all tests; more arguments in PYTEST_ARGS"
	@echo "make soak                  kill 200 training runs, and start one in every state of its folder"
	@echo "make lint                  ruff: rules and formatting"
	@echo "make bench                 speed and memory, as ratios; an hour, fetches 95 MB of code"
	@echo "make clean                 delete .venv, caches and dist/; runs/ stays"
	@echo
	@echo "PYTHON=python3.12 picks the interpreter. PIP_ARGS goes to pip; on Linux without a GPU"
	@echo "  PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'"
	@echo "saves gigabytes: PyPI has only the CUDA build of torch for Linux."

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $(PYTHON) is missing or older than 3.11; try: make PYTHON=python3.12 ..." >&2; \
		exit 1; }
	@echo "Installing into .venv (once; a minute, longer on a slow line) ..."
	@$(PYTHON) -m venv .venv
	@PIP_CONSTRAINT=constraints.txt .venv/bin/python -m pip install --quiet \
		--disable-pip-version-check $(PIP_ARGS) -e '.[dev]'
	@touch $@

quickstart: .venv/.installed
	.venv/bin/sfim run $(QUICKSTART)

control: quickstart
	.venv/bin/sfim run recipes/quickstart-control.yaml
	.venv/bin/sfim evaluate $(QUICKSTART) evaluate.control=runs/quickstart-control
	.venv/bin/sfim report "runs/$(RUN)"

tiny-base: .venv/.installed
	.venv/bin/python bench/fetch.py recipes/tiny-base/packages.csv
	OMP_NUM_THREADS=1 .venv/bin/sfim run recipes/tiny-base.yaml
	OMP_NUM_THREADS=1 .venv/bin/sfim run recipes/tiny-base-infill.yaml
	cp runs/tiny-base-infill/model/* recipes/tiny-base/

test: .venv/.installed
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --maxprocesses 8 $(PYTEST_ARGS)

soak: .venv/.installed
	OMP_NUM_THREADS=1 .venv/bin/python tests/soak.py

lint: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

BENCHES := packing spans pipeline memory standard_library corpus kill find_secrets duplicates order \
	train_cpu plan

bench: .venv/.installed
	.venv/bin/python bench/fetch.py
	@for script in $(BENCHES); do \
		echo "== bench/$$script.py"; \
		.venv/bin/python "bench/$$script.py" || exit 1; \
	done

clean:
	rm -rf .venv dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
