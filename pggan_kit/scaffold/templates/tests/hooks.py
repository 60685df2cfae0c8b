"""Test the plugin's hooks, called as a run calls them."""

from pathlib import Path
from types import SimpleNamespace

import mine

from pggan_kit import JsonLines
from pggan_kit.testing import load_hooks


def test_a_run_leaves_a_diary_and_a_resumed_run_the_same(tmp_path: Path) -> None:
    hooks = load_hooks(mine)  # refuses misspelt hooks, and arguments that hooks do not have
    stage = SimpleNamespace(size="4x4")
    for resumed in (False, True):
        run = SimpleNamespace(directory=tmp_path, resumed=resumed, state=SimpleNamespace(images=40))
        run.files = SimpleNamespace(warn=print)
        hooks.call("before_run", run=run)
        hooks.call("after_stage", run=run, stage=stage, state=run.state)
        hooks.call("after_run", run=run, result={"steps": 10})
        rows = JsonLines(tmp_path / "mine.jsonl").read()
        assert rows == [{"images": 40, "line": "stage 4x4"}, {"images": 40, "line": "done after 10 steps"}]
