# Two commands do everything: `make demo` and `make test`. Both set up what they need first.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: demo test lint bench chaos setup clean lock

setup: .venv/ready

.venv/ready: requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "postroom needs Python 3.11 or newer: install it, or name one with make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	$(BIN)/postroom run --broker embedded --count 10000 --rate 1000 --invalid-ratio 0.02

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two files at a time, each process with servers of its own. What fails then is tried once more by itself: on a machine
# that is too busy for two, a test may wait in vain; what is broken fails again.
test: lint
	$(BIN)/postroom stack install
	$(BIN)/python -m pytest -n 2 --dist loadfile || \
		{ [ $$? -eq 1 ] && $(BIN)/python -m pytest --last-failed --last-failed-no-failures none; }

bench: setup
	$(BIN)/python -m benchmarks

# An hour and more; goes on where it was broken off. One seed repeats a run. Writes docs/reliability.md.
SEED ?= 1
chaos: setup
	$(BIN)/postroom stack install
	POSTROOM_CRASH_STATES=1000000 $(BIN)/python -m pytest tests/unit/streaming/spool/test_power_cuts.py
	$(BIN)/python -m tests.chaos --seed $(SEED) --kills 200 --bounces 50

# Anew from pyproject.toml; hashes only, no address of any registry.
lock: setup
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-annotate --no-header --quiet -o requirements/dev.txt

clean:
	rm -rf .venv
