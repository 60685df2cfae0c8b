"""Test the plugin's hooks, called as a run calls them."""

from pathlib import Path
from types import SimpleNamespace

import mine

from pggan_kit.testing import load_hooks


def test_a_run_leaves_a_diary(tmp_path: Path) -> None:
    hooks = load_hooks(mine)  # refuses misspelt hooks, and arguments that hooks do not have
    run = SimpleNamespace(directory=tmp_path, resumed=False)
    hooks.call("before_run", run=run)
    hooks.call("before_stage", run=run, stage=SimpleNamespace(size="4x4"), state=None)
    hooks.call("after_run", run=run, result={"images": 40})
    assert (tmp_path / "mine.txt").read_text().splitlines() == ["begun", "stage 4x4", "done after 40 images"]
