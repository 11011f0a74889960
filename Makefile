# `make demo` and `make test` do all the set-up, each alone; only Python, pip and make are needed.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
# Strict: the package's modules are links, because its folders bear other names than its packages.
EDITABLE := -e . --no-deps --no-build-isolation --config-settings editable_mode=strict

.PHONY: demo test check bench bench-peers bench-data clean base dev

demo: base
	$(BIN)/tile-infer demo

# Each process may have as many threads as there are cores: those that wait leave them to the others.
test: dev
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n auto --dist worksteal --doctest-modules --pyargs tile_infer tests

check: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p tile_infer
	$(BIN)/mypy tests benchmarks
	$(BIN)/python -m pytest -q tests/test_layout.py

bench: .venv/figures dev
	for script in phase redundancy demo exports mask_codecs memory floor overhead whole certificate \
			kills scaling sleeping workers same_bytes; do \
		$(BIN)/python benchmarks/$$script.py || exit; done
	$(BIN)/python benchmarks/whole.py --backend openvino
	$(MAKE) bench-peers

# Installs each peer into an environment of its own.
bench-peers: .venv/figures dev
	for script in peers plots tables; do $(BIN)/python benchmarks/$$script.py || exit; done

# These need the folder of real images and networks that TILE_INFER_TEST_DATA names.
bench-data: dev
	for script in odd_files fuzz real_images real_networks tables; do $(BIN)/python benchmarks/$$script.py || exit; done

clean:
	rm -rf .venv build dist *.egg-info demo

# Linked again by every target (it takes a second), so that new modules are seen.
base: .venv/base
	@$(INSTALL) $(EDITABLE)

dev: .venv/dev
	@$(INSTALL) $(EDITABLE)

.venv/base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) setuptools .
	touch $@

.venv/dev: .venv/base
	$(INSTALL) '.[dev]'
	touch $@

.venv/figures: .venv/dev
	$(INSTALL) '.[figures]'
	touch $@
