# The one door: what a person types, CI types too. Needs Python 3.11 or newer and make; nothing else.

UV_VERSION := 0.13.9
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
RUN := .venv/bin/python
ARGS ?=

export UV_PROJECT_ENVIRONMENT := .venv
export UV_PYTHON_DOWNLOADS := never

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test test-fast installed bench bench-read bench-evidence bench-backup bench-publish bench-serve lint fix verifier clean

help:  ## Print the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r target sentence; do \
		printf 'make %-15s %s\n' "$$target" "$$sentence"; done

setup: .venv/ready  ## Make .venv with everything at the versions of uv.lock

demo: .venv/ready  ## Record events, ask about them, change a byte, and see it found
	@$(RUN) examples/demo.py $(ARGS)

serve: .venv/ready  ## Serve ledgers over HTTP, from ./tallystick-data; ARGS="--port 9000"
	@.venv/bin/tallystick serve $(ARGS)

test: .venv/ready  ## Run the tests; ARGS="-k merkle" picks some
	@$(RUN) -m pytest -n auto --maxprocesses 8 $(ARGS)

test-fast: .venv/ready  ## Run the tests but those that take seconds, with fewer made-up examples
	@TALLYSTICK_TEST_EXAMPLES=10 $(RUN) -m pytest -n auto --maxprocesses 8 -m "not slow" $(ARGS)

installed:  ## Install it into a fresh environment, as a user would, and use it
	@bash tests/installed.sh $(PYTHON)

bench: .venv/ready  ## Measure the speed, each figure beside a floor or a peer
	@$(RUN) -m benchmarks.run $(ARGS)

bench-read: .venv/ready  ## Measure the read side; ARGS="--records 10000000 --folder DIR" at full size
	@$(RUN) -m benchmarks.read $(ARGS)

bench-evidence: .venv/ready  ## Measure bundles: export and verify a million records
	@$(RUN) -m benchmarks.evidence $(ARGS)

bench-backup: .venv/ready  ## Measure backups of a million records, and what writers see meanwhile
	@$(RUN) -m benchmarks.backup $(ARGS)

bench-publish: .venv/ready  ## Measure how long a published event waits for its ticket
	@$(RUN) -m benchmarks.publish $(ARGS)

bench-serve: .venv/ready  ## Measure the service over HTTP
	@$(RUN) -m benchmarks.serve $(ARGS)

lint: .venv/ready  ## Check format, lint and types
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy

fix: .venv/ready  ## Format the code and mend what the linter can
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

verifier: .venv/ready  ## Pack the verifier into one file, dist/tallystick-verify.pyz
	@rm -rf build/verifier && mkdir -p build/verifier dist
	@cp -R verifier/src/tallystick_verify build/verifier/ && rm -rf build/verifier/tallystick_verify/__pycache__
	@cp verifier/pyz_main.py build/verifier/__main__.py
	@$(RUN) -m zipapp build/verifier -c -p "/usr/bin/env python3" -o dist/tallystick-verify.pyz
	@$(RUN) dist/tallystick-verify.pyz --help >/dev/null && echo "dist/tallystick-verify.pyz"

clean:  ## Remove .venv, caches and build products
	@rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/ready: pyproject.toml uv.lock Makefile
	@test -n "$(PYTHON)" || { echo "Tallystick needs Python 3.11 or newer: install it, or name one with make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is not Python 3.11 or newer: name one that is with make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up .venv with $$($(PYTHON) --version): about a minute the first time"
	@$(PYTHON) -m venv .venv || { echo "Python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; rm -rf .venv; exit 1; }
	@$(RUN) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@.venv/bin/uv sync --frozen --quiet --all-extras
	@touch $@
