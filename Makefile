# `make demo` and `make test` each set up everything on a fresh clone; only Python, pip and make are needed.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
EDITABLE := --config-settings editable_mode=strict

.PHONY: demo test check bench clean

.venv/base: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e . $(EDITABLE)
	touch $@

.venv/dev: .venv/base
	$(INSTALL) torch setuptools
	$(INSTALL) -e '.[dev]' $(EDITABLE)
	touch $@

# A strict editable installation links files: it is renewed (in a second) to see new modules.
.PHONY: link
link: .venv/dev
	@$(INSTALL) -e . --no-deps --no-build-isolation $(EDITABLE)

demo: .venv/base
	$(BIN)/tile-infer demo

test: link
	$(BIN)/python -m pytest -n auto

check: link
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p tile_infer
	$(BIN)/mypy tests benchmarks
	$(BIN)/python -m pytest -q tests/test_layout.py

bench: link
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/memory.py

clean:
	rm -rf .venv build dist *.egg-info
