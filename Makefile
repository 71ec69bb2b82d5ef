# make run | test | soak | fuzz | bench | lock | clean
#
# Each kind of work has a virtual environment of its own, made anew from its lock file whenever the lock,
# pyproject.toml or the interpreter changes, so it never holds a package that the lock doesn't name.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
# Passed on: make run ARGS="--version", make test TESTS=tests/unit
ARGS ?=
TESTS ?=
FUZZ_SECONDS ?= 60

PYTHON_TAG := $(shell $(PYTHON) -c 'import platform, sys; print(sys.implementation.name, platform.python_version(), platform.machine(), sep="-")' 2>/dev/null || echo none)

VENV := .venv
VENV_TEST := .venv-test
VENV_FUZZ := .venv-fuzz
VENV_LOCK := .venv-lock
READY := .ready-$(PYTHON_TAG)

CHECKED := $(wildcard src tests fuzz bench examples)

.PHONY: help
help:
	@echo "make run    start qpc (ARGS=\"...\" are passed to it)"
	@echo "make test   all checks and tests (TESTS=... for some of them)"
	@echo "make soak   the long tests"
	@echo "make fuzz   each fuzz target for $(FUZZ_SECONDS) seconds (FUZZ_SECONDS=...)"
	@echo "make bench  the benchmarks"
	@echo "make lock   write requirements/ from pyproject.toml (UPGRADE=1 for newer versions)"
	@echo "make clean  remove what make made"

# ---------------------------------------------------------------------------------------- environments

.PHONY: python
python:
	@$(PYTHON) -c 'pass' 2>/dev/null || { \
	    echo "quicprochat needs Python 3.11 or newer, and '$(PYTHON)' does not run here: name one with PYTHON=..." >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "quicprochat needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1): name another with PYTHON=..." >&2; \
	    exit 1; }

# $(call make-venv,directory,lock file): empty environment, then exactly what the lock names
define make-venv
	@echo "making $(1) from $(2)"
	@rm -rf $(1)
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(2)
endef
# $(call install-project,directory): the project itself, built with the locked backend
define install-project
	@$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $(1)/$(READY)
endef

$(VENV)/$(READY): requirements/runtime.txt pyproject.toml | python
	$(call make-venv,$(VENV),requirements/runtime.txt)
	$(call install-project,$(VENV))

$(VENV_TEST)/$(READY): requirements/test.txt pyproject.toml | python
	$(call make-venv,$(VENV_TEST),requirements/test.txt)
	$(call install-project,$(VENV_TEST))

$(VENV_FUZZ)/$(READY): requirements/fuzz.txt pyproject.toml | python
	$(call make-venv,$(VENV_FUZZ),requirements/fuzz.txt)
	$(call install-project,$(VENV_FUZZ))

$(VENV_LOCK)/$(READY): requirements/lock.txt | python
	$(call make-venv,$(VENV_LOCK),requirements/lock.txt)
	@touch $@

# ------------------------------------------------------------------------------------------------ work

.PHONY: run
run: $(VENV)/$(READY)
	@$(VENV)/bin/qpc $(ARGS)

# Most tests wait more than they compute, so two runs go side by side: those that talk over this machine's loopback,
# and those that can't meet them there, being pure or in network namespaces of their own.
APART := tests/labs tests/unit tests/conformance tests/property tests/sim

.PHONY: test
test: $(VENV_TEST)/$(READY)
	@tools/system-packages
	$(VENV_TEST)/bin/ruff check $(CHECKED)
	$(VENV_TEST)/bin/ruff format --check $(CHECKED)
	$(VENV_TEST)/bin/mypy $(CHECKED)
	$(VENV_TEST)/bin/lint-imports
ifdef TESTS
	$(VENV_TEST)/bin/pytest $(TESTS)
else
	@mkdir -p build
	@echo "beside this run, $(APART): printed at its end"
	@$(VENV_TEST)/bin/pytest -o cache_dir=.pytest_cache/apart $(APART) > build/tests-apart.txt 2>&1 & apart=$$!; \
	    here=0; $(VENV_TEST)/bin/pytest -o cache_dir=.pytest_cache/host $(addprefix --ignore=,$(APART)) || here=$$?; \
	    there=0; wait $$apart || there=$$?; cat build/tests-apart.txt; exit $$(( here > there ? here : there ))
endif

# pytest ends with 5 when no test is marked.
.PHONY: soak
soak: $(VENV_TEST)/$(READY)
	@tools/system-packages
	QPC_SOAK=1 $(VENV_TEST)/bin/pytest -m soak --timeout=7200 $(TESTS) || \
	    { [ $$? -eq 5 ] && echo "no soak tests yet"; }

# New inputs are gathered in build/fuzz/NAME; fuzz/corpus/NAME, if present, is only read.
.PHONY: fuzz
fuzz: $(VENV_FUZZ)/$(READY)
	@$(VENV_FUZZ)/bin/python -c 'import atheris' 2>/dev/null || { \
	    echo "atheris has no wheel for $(PYTHON_TAG): fuzz on x86-64 Linux with CPython 3.11 to 3.13" >&2; exit 1; }
	@targets=0; \
	for target in fuzz/fuzz_*.py; do \
	    [ -e "$$target" ] || continue; \
	    targets=1; \
	    name=$$(basename "$$target" .py); name=$${name#fuzz_}; \
	    mkdir -p "build/fuzz/$$name"; \
	    corpus=""; [ ! -d "fuzz/corpus/$$name" ] || corpus="fuzz/corpus/$$name"; \
	    echo "fuzzing $$name for $(FUZZ_SECONDS) s"; \
	    PYTHONPATH=. $(VENV_FUZZ)/bin/python "$$target" -max_total_time=$(FUZZ_SECONDS) -timeout=10 \
	        -artifact_prefix="build/fuzz/$$name-" "build/fuzz/$$name" $$corpus; \
	done; \
	[ $$targets -eq 1 ] || echo "no fuzz targets yet"

.PHONY: bench
bench: $(VENV_TEST)/$(READY)
	@if [ -e bench/__main__.py ]; then $(VENV_TEST)/bin/python -m bench $(ARGS); else echo "no benchmarks yet"; fi

# ------------------------------------------------------------------------------------------------ locks
# One resolution for all platforms and for CPython 3.11 up, with the hashes of every wheel and source archive
# and no address of where they lie. Versions already locked stay unless UPGRADE=1; the test and fuzz locks
# keep to the runtime's versions. The tool that writes the locks is locked too (lock.txt).

COMPILE = $(VENV_LOCK)/bin/uv --quiet --no-config pip compile --python $(VENV_LOCK)/bin/python \
    --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" \
    $(if $(UPGRADE),--upgrade)

.PHONY: lock
lock: $(VENV_LOCK)/$(READY)
	$(COMPILE) pyproject.toml --extra mesh --extra plot --group build -o requirements/runtime.txt
	$(COMPILE) pyproject.toml --extra mesh --extra plot --group build --group test --group lint \
	    -c requirements/runtime.txt -o requirements/test.txt
	$(COMPILE) pyproject.toml --extra mesh --group build --group fuzz \
	    -c requirements/runtime.txt -o requirements/fuzz.txt
	$(COMPILE) --group lock -o requirements/lock.txt

.PHONY: clean
clean:
	rm -rf .venv .venv-test .venv-fuzz .venv-lock build dist .hypothesis .import_linter_cache .mypy_cache \
	    .pytest_cache .ruff_cache
	find src tests fuzz bench examples tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
