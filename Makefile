# `make demo` and `make test` are all that a new machine needs; each installs what is missing first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
TOOLS := .venv/tools/bin
TOOLS_READY := .venv/tools/ready
OLDEST ?= python3.10
NEWEST ?= python3.13
TESTS ?= -n 2 --dist worksteal -m 'not slow and not browser'

.PHONY: demo test test-oldest test-newest test-extras test-slow test-soak test-browser test-slurm lint lint-ci hooks lock audit sbom docs docs-versions gallery bench gpu gpu-compiled install clean

# Two processes of one thread: beside other work, two threads of one process wait for each other (docs/distributed.md).
demo: $(READY)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pggan-kit train experiments/demo.gin --ranks 2

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest $(TESTS)

# The installed wheel, on the oldest Python with the lowest versions that setup.cfg allows, and on the newest with the
# newest; each in an environment of its own. TESTS holds arguments of pytest.
test-oldest:
	$(PYTHON) scripts/test_wheel.py $(OLDEST) constraints-oldest.txt $(TESTS)

test-newest:
	$(PYTHON) scripts/test_wheel.py $(NEWEST) newest $(TESTS)

# What needs packages that `make test` does without, in an environment of their own, with the newest versions.
test-extras:
	EXTRAS=video,hdf5,lmdb,dicom,wandb,mlflow,trackio,sweep $(PYTHON) scripts/test_wheel.py $(PYTHON) newest \
		tests/pictures/test_animation.py tests/plugins/datasets tests/plugins/observers/test_trackers.py \
		tests/test_docs.py::test_cookbook tests/sweeps tests/ablation/test_tuning.py

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow

test-soak: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow tests/runs/test_soak.py

# Trials as jobs of a cluster of one node, this machine. Needs root and Debian's packages slurm-wlm and munge.
test-slurm: $(READY)
	OMP_NUM_THREADS=1 scripts/with_slurm.sh $(BIN)/pytest -m slurm

# The report, and the page to explore a run, in a headless Chromium, which has to be installed. Gradio holds other
# packages back: in an environment of their own.
test-browser:
	EXTRAS=explore,browser $(PYTHON) scripts/test_wheel.py $(PYTHON) newest -m browser

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy scripts

# The hooks of .pre-commit-config.yaml on all files: ruff, mypy and the hygiene of files.
hooks: $(READY) $(TOOLS_READY)
	$(TOOLS)/pre-commit run --all-files

# The workflows, those that `plugins new` writes, the Dockerfile and what else only GitHub reads. Needs the package
# registry alone. actionlint finds shellcheck on the PATH, where it takes absolute paths only.
lint-ci: $(TOOLS_READY)
	$(TOOLS)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(TOOLS)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(TOOLS)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(TOOLS)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(TOOLS)/check-jsonschema --builtin-schema vendor.citation-file-format --default-filetype yaml CITATION.cff
	rm -rf build/workflows && mkdir -p build/workflows
	for name in test release; do cp pggan_kit/scaffold/templates/$$name.yml.txt build/workflows/$$name.yml; done
	PATH="$(abspath $(TOOLS)):$$PATH" actionlint .github/workflows/*.yml build/workflows/*.yml
	$(TOOLS)/zizmor --offline --quiet .github build/workflows/*.yml
	$(TOOLS)/hadolint Dockerfile

# The versions in constraints.txt and all that they require, of every extra, with the hashes of their files.
lock: $(TOOLS_READY)
	$(PYTHON) scripts/lock.py $(TOOLS)/uv

# Known vulnerabilities of what is locked. pip-audit asks the JSON interface of pypi.org, whatever index pip has: a mirror
# that lacks it answers "not found" for everything. AUDIT holds further arguments, as for another service.
AUDIT ?=

audit: $(TOOLS_READY)
	$(TOOLS)/pip-audit --strict --disable-pip --requirement requirements-locked.txt $(AUDIT) || { echo \
		"error: the audit did not pass. 'Dependency not found on PyPI' says that a mirror answered in place of" \
		"https://pypi.org/pypi/NAME/VERSION/json: ask another service, AUDIT='--vulnerability-service osv'" >&2; exit 1; }

# What is locked, as a CycloneDX bill of materials.
sbom: $(TOOLS_READY)
	$(PYTHON) scripts/write_sbom.py $(TOOLS)/cyclonedx-py

install: $(READY)

docs: $(READY)
	$(BIN)/python -m sphinx -q -W --keep-going -n -b html docs docs/_build
	@echo docs/_build/index.html

# The same, and the pages of released versions beside them, each built by its tag.
docs-versions:
	$(PYTHON) scripts/build_doc_versions.py

# The pictures of docs/gallery.md, and what its files cost, after a change of experiments/.
gallery: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/draw_gallery.py

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

# All stages compiled, too; COMPILED holds arguments of the script, for example: COMPILED="--stages 128x128 --workers 2"
gpu-compiled: $(READY)
	$(BIN)/python benchmarks/gpu_compiled.py $(COMPILED)

# Tools beside the tested set, in an environment of their own: what they require does not meet what the tests do.
$(TOOLS_READY): constraints-tools.txt
	test -x $(TOOLS)/python || $(PYTHON) -m venv .venv/tools
	$(TOOLS)/python -m pip install --quiet --requirement constraints-tools.txt
	touch $(TOOLS_READY)

clean:
	rm -rf .venv build docs/_build docs/reference *.egg-info .pytest_cache .mypy_cache .ruff_cache
