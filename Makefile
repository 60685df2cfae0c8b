# `make demo` and `make test` are all that a new machine needs; each installs what is missing first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test test-slow test-soak lint bench clean

demo: $(READY)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(BIN)/pggan-kit train experiments/mnist.gin

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m 'not slow'

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow

test-soak: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow tests/test_soak.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(BIN)/pytest benchmarks -s

# The link lets mypy see plugins/ under the name that it is imported by.
$(READY): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	mkdir -p .venv/typing && ln -sfn ../../plugins .venv/typing/pggan_plugins
	touch $(READY)

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
