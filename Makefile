# `make help` lists what there is. Needs Python >= 3.11 with venv; installs the rest in .venv.

VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that is new enough; `make PYTHON=... demo` chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# Real files, where they are at hand, are tested too.
ifneq ($(wildcard ../shared/data/real),)
export CATERVA2_REAL_DATA ?= $(abspath ../shared/data/real)
endif
ARGS ?=
# Processes that share the tests: most of them wait for services, not for a core.
TESTERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types docs check-long assets check-assets bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed: install it, or run make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV), which takes some minutes the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all]'
	@touch $@

$(VENV)/.developer: pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV), which takes some minutes the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.runtime

demo: $(VENV)/.runtime ## a broker, two publishers and JupyterLab with the subscriber inside; ARGS=--no-browser
	@$(BIN)/python -m caterva2_jupyter.tools.demo $(ARGS)

test: $(VENV)/.developer ## every test; ARGS are pytest's
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile $(ARGS)

lint: $(VENV)/.developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.developer
	$(BIN)/mypy

docs: $(VENV)/.developer ## the documentation, in docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

check: lint types test docs ## what CI runs

check-long: export CATERVA2_TEST_LOOPS = long
check-long: check ## the same with the full counts of loops

assets: ## rebuild what browsers load from server_extension/; needs Node >= 20.19 with npm
	@node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' \
		|| { echo "Node >= 20.19 with npm is needed: install it; what is committed works without" >&2; exit 1; }
	cd server_extension && npm ci && npm run build

check-assets: assets ## the same, and fail when it differs from what is committed
	@changed="$$(git status --porcelain -- caterva2_jupyter/static caterva2_jupyter/labextension)"; test -z "$$changed" \
		|| { echo "the committed build is another one: commit what make assets builds" >&2; echo "$$changed" >&2; exit 1; }

bench: $(VENV)/.developer ## measure against what else there is, see benchmarks/README.md; ARGS=--quick is short
	@$(BIN)/python -m benchmarks.run $(ARGS)

clean: ## remove what was built, .venv included
	rm -rf $(VENV) docs/_build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .demo _caterva2 _caterva2_tests
