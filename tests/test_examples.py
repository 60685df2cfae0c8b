"""What lies in examples/: its tests pass, and the notebook runs from top to bottom."""

import importlib.util
import io
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from helpers.forks import run_pytest
from helpers.paths import ROOT
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXAMPLES.glob("*/test_*.py")))
def test_an_examples_own_tests_pass(name: str, tmp_path: Path) -> None:
    done = run_pytest(tmp_path, EXAMPLES / name)
    assert done.returncode == 0, done.read_output()


def test_the_third_party_plugin_is_as_short_as_the_readme_says() -> None:
    (lines,) = re.findall(r"a switch and an observer in under (\d+) lines", (ROOT / "README.md").read_text())
    assert len((EXAMPLES / "adaptive" / "adaptive.py").read_text().splitlines()) < int(lines)


class Screen(DisplayPublisher):
    """What cells display: the pictures, by the name under which each takes the place of the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, list[bytes]] = {}

    def publish(
        self, data: Any, metadata: Any = None, *, transient: Any = None, update: bool = False, **_: Any
    ) -> None:
        place = (transient or {}).get("display_id", f"without a name {len(self.shown)}")
        assert update == (place in self.shown)
        if "image/png" in data:
            self.shown.setdefault(place, []).append(data["image/png"])


def shorten(source: str) -> str:
    """Return a cell whose runs take two updates or three in place of thousands of images."""
    for long, short in (("4_800", "64"), ("19_200", "96"), ("6_400", "64"), ("16_000", "64"), ("1_600", "32")):
        source = source.replace(long, short)
    return source.replace("{7: 64, 14: 32, 28: 16}", "4")


@pytest.fixture(scope="module")
def cells() -> list[str]:
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") for cell in notebook.cells), "the notebook is kept without outputs"
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebook_runs_and_its_pictures_change_while_it_trains(
    cells: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an empty folder, as on a hosted machine, and with budgets that take seconds."""
    monkeypatch.chdir(tmp_path)
    shell = InteractiveShell()
    screen = Screen()
    monkeypatch.setattr(shell, "display_pub", screen)
    monkeypatch.setattr(InteractiveShell, "_instance", shell)
    shell.display_formatter.active_types = ["text/plain", "image/png", "image/gif"]
    results = []
    for source in cells:
        done = shell.run_cell(shorten(source))
        done.raise_error()
        results.append(shell.display_formatter.format(done.result)[0])

    # One picture a run, which changes at each tick.
    runs = [shell.user_ns[name] for name in ("soft", "hard", "mine")]
    soft, hard, mine = screen.shown.values()
    for run, pictures in zip(runs, (soft, hard, mine), strict=True):
        assert len(set(pictures)) == len(pictures) == len(run.stats) > 5
    assert [run.stats[-1]["Progress/size"] for run in runs] == [28, 28, 14]

    # The soft run is on the left; both are equal until the first growth.
    for number, (beside, alone) in enumerate(zip(hard, soft, strict=True)):
        picture, left = (Image.open(io.BytesIO(content)).convert("L") for content in (beside, alone))
        halves = [picture.crop((start, 0, start + left.width, left.height)) for start in (0, left.width)]
        assert halves[0].tobytes() == left.tobytes()
        has_grown = runs[1].stats[number]["Progress/size"] > 7
        assert (halves[0].tobytes() != halves[1].tobytes()) == has_grown

    # The loss of the cell, by its name in gin; the grid, and the film.
    assert {"Loss/discriminator/reals", "Loss/generator/fakes"} <= set(runs[2].stats[-1])
    assert "losses.Mine.margin = 2.0" in (runs[2].directory / "operative.gin").read_text()
    assert sum("image/png" in shown for shown in results) == 1
    assert results[-1]["image/gif"]


def test_the_first_cell_installs_from_the_repository_where_the_package_is_missing(
    cells: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = InteractiveShell()
    installed: list[str] = []
    monkeypatch.setattr(shell, "run_line_magic", lambda name, line, *_, **__: installed.append(f"{name} {line}"))
    shell.run_cell(cells[0]).raise_error()
    assert installed == []
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        shell.run_cell(cells[0]).raise_error()
    (url,) = re.findall(r"Source = (\S+)", (ROOT / "setup.cfg").read_text())
    assert installed == [f"pip install --quiet git+{url}"]


def test_the_benchmarks_are_collected() -> None:
    done = run_pytest(ROOT, "--collect-only", ROOT / "benchmarks")
    assert done.returncode == 0, done.read_output()
