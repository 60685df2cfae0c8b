"""Test one trial's run folder: what may hold a trained run is never removed to begin again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import STUB_PLUGIN

from pggan_kit.ablation import plan as plans
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.trial import locate_trial, read_result, run_trial
from pggan_kit.errors import RunError

STUB = str(STUB_PLUGIN)
OUT = Path("out")


@pytest.fixture
def trial(train: Callable[..., Any]) -> Path:
    """Return the folder of a trial whose run is trained, and whose plan is written."""
    folder = locate_trial(OUT, "linear", 0)
    run = train("train.seed = 0", run_dir=str(folder))
    (row,) = [row for row in run.files.about()["plugins"] if row["origin"].endswith("stub_plugin.py")]
    plan = Plan(
        name="switch", base="tiny.gin", variants={"linear": []}, seeds=[0], controls={}, contrasts=[],
        primary="SWD", quantities={}, margin=0.5, evaluation=["evaluation.count = 4"], shared=[], branch=None,
        configs={"linear": (folder / "config.gin").read_text()}, plugins={row["origin"]: row["sha256"]},
    )  # fmt: skip
    plans.write_plan(plan, OUT)
    return folder


def link_to_itself(path: Path) -> None:
    """Stand for a folder or file that cannot be read now: root may read anything else."""
    if path.is_dir():
        shutil.move(path, "kept")
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


TROUBLES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "unreadable checkpoints": (lambda run: link_to_itself(run / "checkpoints"), "The checkpoints may be intact"),
    "moved checkpoints": (lambda run: shutil.move(run / "checkpoints", "kept"), "holds no checkpoint"),
    "no run.json": (lambda run: os.remove(run / "run.json"), r"It has checkpoints: put its run\.json back"),
    "unreadable rows": (lambda run: link_to_itself(run / "stats.jsonl"), r"stats\.jsonl is a link to stats\.jsonl"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_run_that_may_be_intact_is_not_begun_again(trial: Path, trouble: str) -> None:
    make_trouble, message = TROUBLES[trouble]
    make_trouble(trial)
    before = sorted(path.name for path in trial.iterdir())
    with pytest.raises(RunError, match=message):
        run_trial(OUT, "linear", 0, [STUB])
    assert sorted(path.name for path in trial.iterdir()) == before


def test_a_result_that_cannot_be_read_is_not_called_damaged(trial: Path) -> None:
    link_to_itself(trial / "result.json")
    with pytest.raises(RunError, match=r"^cannot read .*result\.json: Too many levels") as raised:
        read_result(trial)
    assert "remove" not in str(raised.value)
    link_to_itself(OUT / "plan.json")
    with pytest.raises(RunError, match=r"^cannot read .*plan\.json: Too many levels"):
        plans.load_plan(OUT)


ROW = {"metric": "FID", "value": 1.0, "floor": None}


@pytest.mark.parametrize("rows", [None, 3, [{}], [3], [{**ROW, "value": "3"}], [{**ROW, "floor": [1.0]}]])
def test_a_result_whose_rows_are_none_is_damaged(rows: Any, tmp_path: Path) -> None:
    result = {"failed": None, "images": 1, "rows": [ROW], "revision": "r", "hardware": "h"}
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert read_result(tmp_path) == result
    (tmp_path / "result.json").write_text(json.dumps({**result, "rows": rows}))
    with pytest.raises(RunError, match=r"result\.json is damaged \(.*; remove it, and the trial is evaluated again"):
        read_result(tmp_path)
