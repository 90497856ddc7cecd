# Every target makes the virtual environment .venv itself and installs what it needs; a second run
# finds it there. PYTHON=/path/to/python3.12 chooses the interpreter (make clean first to change it).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
STAMPS := $(VENV)/stamps
NATIVE := setup.py $(shell find src -name '*.pyx' -o -name '*.pxi' -o -name '*.pxd' -o -name '*.h' -o -name '*.cpp' ! -name _core.cpp -o -name '*.map')

say = printf '\n== %s (%s)\n' "$(1)" "$$(date +%T)"

.PHONY: help demo test bench lint types unit wheel sanitize conformance fuzz build clean

help: ## show this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

demo: $(STAMPS)/native ## a server with sixteen channels of live audio, and a link to hear them
	@$(BIN)/roomserver demo

test: lint $(STAMPS)/test-system ## lint, types, wheel and every test (CI runs make sanitize and .ci/test-kernels besides)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target types wheel
	@$(MAKE) --no-print-directory unit

bench: $(STAMPS)/bench-system $(STAMPS)/dev $(STAMPS)/native ## micro-benchmarks, then whole-server scenarios: about four hours; keeps the results
	@$(call say,benchmarks)
	@$(BIN)/python -m benchmarks --json

lint: $(STAMPS)/dev ## ruff: rules and format
	@$(call say,ruff)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(STAMPS)/dev $(STAMPS)/native ## mypy, and the extension's stub against the extension
	@$(call say,mypy)
	@$(BIN)/mypy
	@$(BIN)/python -m mypy.stubtest relaycore --mypy-config-file pyproject.toml \
		--allowlist tests/stubtest_allowlist.txt

# These have the machine for themselves; all others run beside each other, a file in one process: one
# more than there are processors, since tests also wait. The fuzzers, which take all there is, come
# last.
ALONE := tests/browser tests/fault/hostile \
	$(addprefix tests/fault/test_,floods.py overload.py stalled_listeners.py tortured_python.py) \
	$(addprefix tests/integration/,relay/test_relay_audio.py test_benchmarks.py test_commands.py \
	test_demo.py test_server_audio.py test_switching.py)
BESIDE := --numprocesses $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --no-loadscope-reorder

unit: $(STAMPS)/test-system $(STAMPS)/dev $(STAMPS)/native ## the tests alone (some of them: make unit ARGS="-k ring")
	@$(call say,pytest)
ifdef ARGS
	@$(BIN)/python -m pytest $(ARGS)
else
	@failed=0; \
	$(BIN)/python -m pytest $(BESIDE) $(ALONE:%=--ignore=%) --ignore=tests/fuzz || failed=1; \
	$(BIN)/python -m pytest $(ALONE) || failed=1; \
	$(BIN)/python -m pytest tests/fuzz || failed=1; \
	exit $$failed
endif

wheel: $(STAMPS)/dev ## build sdist and wheel, repair, install in a clean environment, test there
	@$(call say,sdist and wheel)
	@.ci/test-wheel $(BIN)/python

SANITIZED := $(CURDIR)/build/sanitized
# What is freed is kept, to see who uses it still: less of it than a test allows for in all (64 MiB).
ASAN_OPTIONS := detect_leaks=0:quarantine_size_mb=16
sanitize: $(STAMPS)/dev ## the extension's tests under address and undefined-behaviour sanitizers
	@$(call say,sanitizers)
	@rm -rf $(SANITIZED)
	@RELAYCORE_CXXFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=undefined -O1 -g \
			-DRELAYCORE_COUNT_OBJECTS" \
		$(BIN)/python setup.py --quiet build --build-base $(SANITIZED) --build-lib $(SANITIZED)/lib
	@LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=$(ASAN_OPTIONS) RELAYCORE_COUNT_OBJECTS=1 PYTHONPATH=$(SANITIZED)/lib \
		$(BIN)/python -m pytest --capture=sys --timeout 300 tests/unit/test_ring_buffer.py \
		tests/unit/test_jitter_*.py tests/unit/test_kernels.py tests/integration/relay $(ARGS)

conformance: $(STAMPS)/dev $(STAMPS)/native ## the Autobahn WebSocket suite (needs Python 2.7), summary into docs/
	@$(call say,Autobahn)
	@$(BIN)/python tests/conformance/autobahn.py

fuzz: $(STAMPS)/test-system $(STAMPS)/dev $(STAMPS)/native ## look longer (FUZZ_SECONDS each) and keep what was found in the corpora
	@$(call say,fuzzers)
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-600} FUZZ_KEEP=1 $(BIN)/python -m pytest tests/fuzz $(ARGS)

build: $(STAMPS)/dev $(STAMPS)/native ## environment for development, extension built in place

clean: ## remove the environment and everything built
	rm -rf $(VENV) build dist wheelhouse .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	rm -f src/relaycore/_core.cpp src/relaycore/_core.*.so
	rm -rf src/*.egg-info

# --- what the targets stand on ---------------------------------------------------------------

$(STAMPS)/venv:
	@.ci/system-packages build
	@$(call say,virtual environment $(VENV))
	@test -x $(BIN)/python || { python=$$(.ci/find-python) && "$$python" -m venv $(VENV); }
	@$(BIN)/python --version
	@mkdir -p $(STAMPS) && touch $@

# The package itself, installed so that the sources here are what runs; with what roomserver needs.
$(STAMPS)/server: $(STAMPS)/venv pyproject.toml
	@$(call say,building relaycore and installing it with its server)
	@$(PIP) install $$($(BIN)/python .ci/build_requires.py)
	@$(PIP) install --no-build-isolation --editable '.[server]'
	@touch $@

$(STAMPS)/dev: $(STAMPS)/server | $(STAMPS)/native
	@$(call say,installing the tools for development)
	@$(PIP) install --no-build-isolation --editable '.[dev]'
	@touch $@

$(STAMPS)/native: $(STAMPS)/server $(NATIVE)
	@$(call say,extension)
	@$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

$(STAMPS)/bench-system: $(STAMPS)/venv .ci/system-packages
	@.ci/system-packages bench
	@touch $@

$(STAMPS)/test-system: $(STAMPS)/venv .ci/system-packages
	@.ci/system-packages test
	@touch $@
