"""What lies in examples/: its tests pass, and the notebook runs from top to bottom."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.patience import PATIENCE_SECONDS

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXAMPLES.glob("*/test_*.py")))
def test_an_examples_own_tests_pass(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / name)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 0, done.stdout


def test_the_third_party_plugin_is_as_short_as_the_readme_says() -> None:
    (lines,) = re.findall(r"a switch and an observer in under (\d+) lines", (ROOT / "README.md").read_text())
    assert len((EXAMPLES / "adaptive" / "adaptive.py").read_text().splitlines()) < int(lines)


def test_the_notebook_runs_and_shows_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.chdir(tmp_path)
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") for cell in notebook.cells), "the notebook is kept without outputs"
    (tmp_path / "examples").symlink_to(EXAMPLES)
    (tmp_path / "experiments").symlink_to(EXAMPLES.parent / "experiments")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=PATIENCE_SECONDS, kernel_name="python3", resources=folder).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert not [output for output in outputs if output.output_type == "error"]


def test_the_benchmarks_are_collected() -> None:
    folder = str(ROOT / "benchmarks")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 0, done.stdout
