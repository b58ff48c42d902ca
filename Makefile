# make demo    install, compare no norm, Post-LN and Pre-LN over three learning rates
# make learn   install, build the pages, show the teaching path
# make test    lint, types, import contract, tests
# make test-slow    the studies of minutes
# make docs    all pages as a site that needs no server: outputs/site/index.html
# make experiments-quick    the six experiments and their figures, five minutes
# make experiments          the same with more seeds, rates and depths, about an hour

# Hydra 1.3 does not start on Python 3.14. A name on the path may be a shim that starts nothing, so
# each is tried.
FITS := 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
  if $$p -c $(FITS) >/dev/null 2>&1; then echo $$p; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

EXPERIMENTS := gradient_vanishing norm_comparison layernorm_vs_rmsnorm prenorm_vs_postnorm \
  precision block
experiments-quick: BUDGET := quick
BUDGET ?= standard

.PHONY: demo learn test test-slow lint docs clean experiments experiments-quick

demo: $(VENV)/.installed
	$(BIN)/python train.py experiment=learning_rates

# The pages are built once; `make docs` builds them again.
learn: $(VENV)/.installed outputs/site/index.html
	$(BIN)/python scripts/learn.py

outputs/site/index.html:
	$(MAKE) docs

# Each goes on where it was; one that fails leaves the others.
experiments experiments-quick: $(VENV)/.installed
	@failed=; for name in $(EXPERIMENTS); do \
	  echo; echo "== experiment=$$name budget=$(BUDGET)"; \
	  $(BIN)/python train.py experiment=$$name budget=$(BUDGET) || failed="$$failed $$name"; \
	done; \
	if [ -n "$$failed" ]; then echo "did not finish:$$failed" >&2; exit 1; fi

test: lint
	$(BIN)/python -m pytest -m "not slow" -n auto --dist worksteal

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

# A broken link is a warning of Sphinx, and -W makes it an error.
docs: $(VENV)/.installed-docs
	PYTHONPATH=scripts/docs $(BIN)/python -m sphinx -q -W --keep-going -b html \
	  -c scripts/docs -d outputs/.site_doctrees . outputs/site
	@echo "open outputs/site/index.html"

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

$(VENV)/bin/python:
	@$(or $(PYTHON),false) -c $(FITS) >/dev/null 2>&1 || { \
	  echo "normlab needs Python 3.11, 3.12 or 3.13; give one with make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch goes first and alone: no other package may choose a build of it.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) torch
	$(PIP) -e ".[kernels]"
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) -e ".[kernels,test,docs]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) -e ".[kernels,docs]"
	@touch $@

clean:
	rm -rf $(VENV) docs/api outputs/site outputs/.site_doctrees .mypy_cache .ruff_cache .pytest_cache
