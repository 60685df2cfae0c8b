"""What lies in examples/: its tests pass, and the notebook runs from top to bottom."""

import re
from pathlib import Path

import pytest
from helpers.forks import run_pytest
from helpers.paths import ROOT

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXAMPLES.glob("*/test_*.py")))
def test_an_examples_own_tests_pass(name: str, tmp_path: Path) -> None:
    done = run_pytest(tmp_path, EXAMPLES / name)
    assert done.returncode == 0, done.read_output()


def test_the_third_party_plugin_is_as_short_as_the_readme_says() -> None:
    (lines,) = re.findall(r"a switch and an observer in under (\d+) lines", (ROOT / "README.md").read_text())
    assert len((EXAMPLES / "adaptive" / "adaptive.py").read_text().splitlines()) < int(lines)


def test_the_notebook_runs_and_shows_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    interactiveshell = pytest.importorskip("IPython.core.interactiveshell")
    monkeypatch.chdir(tmp_path)
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") for cell in notebook.cells), "the notebook is kept without outputs"
    (tmp_path / "examples").symlink_to(EXAMPLES)
    (tmp_path / "experiments").symlink_to(EXAMPLES.parent / "experiments")

    # The cells run in this process, and with budgets that take seconds.
    shell = interactiveshell.InteractiveShell()
    shell.display_formatter.active_types = ["text/plain", "image/png"]
    pictures = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        done = shell.run_cell(cell.source.replace("= 960", "= 64"))
        done.raise_error()
        shown, _ = shell.display_formatter.format(done.result)
        pictures += "image/png" in shown
    assert pictures == 3
    assert shell.user_ns["SMALL"].count("schedule.fade_images = 64") == 1


def test_the_benchmarks_are_collected() -> None:
    done = run_pytest(ROOT, "--collect-only", ROOT / "benchmarks")
    assert done.returncode == 0, done.read_output()
