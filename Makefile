# `make demo` and `make test` are all that a new machine needs; each installs what is missing first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
OLDEST ?= python3.10
NEWEST ?= python3.13
TESTS ?= -n 2 --dist worksteal -m 'not slow and not browser'

.PHONY: demo test test-oldest test-newest test-extras test-slow test-soak test-browser test-slurm lint docs bench gpu clean

demo: $(READY)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(BIN)/pggan-kit train experiments/mnist.gin

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest $(TESTS)

# The installed wheel, on the oldest Python with the lowest versions that setup.cfg allows, and on the newest with the
# newest; each in an environment of its own. TESTS holds arguments of pytest.
test-oldest:
	scripts/test_wheel.sh $(OLDEST) constraints-oldest.txt $(TESTS)

test-newest:
	scripts/test_wheel.sh $(NEWEST) newest $(TESTS)

# What needs packages that `make test` does without, in an environment of their own: some hold others back.
test-extras:
	EXTRAS=video,wandb,mlflow,trackio scripts/test_wheel.sh $(PYTHON) newest tests/pictures/test_animation.py \
		tests/plugins/observers/test_trackers.py

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow

test-soak: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow tests/runs/test_soak.py

# Trials as jobs of a cluster of one node, this machine. Needs root and Debian's packages slurm-wlm and munge.
test-slurm: $(READY)
	OMP_NUM_THREADS=1 scripts/with_slurm.sh $(BIN)/pytest -m slurm

# The report in a headless Chromium, which has to be installed.
test-browser: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m browser

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m sphinx -q -W --keep-going -n -b html docs docs/_build
	@echo docs/_build/index.html

bench: $(READY)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(BIN)/pytest benchmarks -s
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(BIN)/pggan-kit bench benchmarks/ladder.gin --plugin benchmarks/noise.py \
		--against benchmarks/reference.py:make --variant "pool first=architectures.PGGAN.pool = 'before_activation'"

# The link lets mypy see plugins/ under the name that it is imported by.
$(READY): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the versions in constraints.txt into .venv: torch alone is 200 MB (CPU) to 3 GB (CUDA); this takes minutes"
	$(BIN)/python -m pip install $$(test -t 1 || echo --quiet) --constraint constraints.txt --editable '.[dev]'
	mkdir -p .venv/typing && ln -sfn ../../plugins .venv/typing/pggan_plugins
	touch $(READY)

# On a machine with an NVIDIA GPU: the tests that need one, then all stages within GPU_SECONDS. BENCH holds arguments of
# `pggan-kit bench`, for example: BENCH="--variant \"compiled=train.compile = 'always'\" --stages 4x4,32x32,128x128"
GPU_SECONDS ?= 240
BENCH ?=

gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py --seconds $(GPU_SECONDS) $(BENCH)

clean:
	rm -rf .venv build docs/_build docs/reference *.egg-info .pytest_cache .mypy_cache .ruff_cache
