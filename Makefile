# Every target sets up .venv when it is first needed, and again only after pyproject.toml has changed.
# The command needs no activation: .venv/bin/slalom. Another Python: make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: help demo test check bench exhaustive parity size

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*  ## /make \1: /p' $(MAKEFILE_LIST)

demo: $(VENV)/.cli  ## train on a table that ships with scikit-learn, and print the scores
	$(RUN) examples/demo.py

test: $(VENV)/.dev  ## every test, and every example in docstrings and README
	$(RUN) -m pytest -n 2

check: $(VENV)/.dev  ## lint, format, types and the rules of the house; under a minute
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pytest -q tests/test_architecture.py

# OPENBLAS_* may pin NumPy to slower kernels than the CPU has; no peer is to be handicapped.
bench: $(VENV)/.dev  ## measure speed beside the peers that are installed (ARGS=… is passed on)
	env $(patsubst %,-u %,$(filter OPENBLAS_%,$(.VARIABLES))) $(RUN) benchmarks/run.py $(ARGS)

exhaustive: $(VENV)/.dev  ## the sweeps that are too long for `make test`
	$(RUN) -m pytest -v -m exhaustive --timeout=0 tests

parity: $(VENV)/.dev  ## write docs/parity.md: differences to PyTorch, where that is installed
	$(RUN) tools/parity.py

size: $(VENV)/.dev  ## files, lines, primitives, rows of tables, skipped and expected failures
	@$(RUN) tools/size.py

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.cli: pyproject.toml | $(VENV)/bin/pip
	@echo "Installing Slalom and the libraries of its command line into $(VENV) ..."
	@$(RUN) -m pip install --quiet --editable '.[cli]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/pip
	@echo "Installing Slalom and the tools of its developers into $(VENV) ..."
	@$(RUN) -m pip install --quiet --editable '.[cli,dev]'
	@touch $@ $(VENV)/.cli
