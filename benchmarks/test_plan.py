"""`plan` against a short run of the same experiment: each stage of the yardstick from 4 to 128 pixels, fade and after.

Takes some minutes. On a machine that does something else as well, what is predicted and what is seen differ by that.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from conftest import HERE, LADDER

from pggan_kit.api.train import train
from pggan_kit.benchmarking.plan import plan

STEPS = {4: 400, 8: 200, 16: 100, 32: 40, 64: 16, 128: 8}
IMAGES = {size: 16 * steps for size, steps in STEPS.items()}
BINDINGS = [f"schedule.fade_images = {IMAGES}", f"schedule.stable_images = {IMAGES}"]
WITHIN = 0.2


def test_plan_against_a_short_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGGAN_KIT_CACHE", str(tmp_path / "cache"))
    plugins = [str(HERE / "noise.py")]
    rows = plan(LADDER, BINDINGS, plugins)
    run = train(LADDER, BINDINGS, run_dir=tmp_path / "run", plugins=plugins)
    seen: dict[str, float] = defaultdict(float)
    for tick in run.files.stats():
        stage = run.schedule.stages[int(tick["Progress/stage"])]
        seen[stage.size] += tick["Timing/seconds"]
    errors = {}
    print()
    for row in rows:
        predicted, took = row["hours"] * 3600, seen[row["size"]]
        errors[row["size"]] = predicted / took - 1
        how = "measured" if row["measured"] else "extrapolated"
        print(f"{row['size']}: {predicted:.1f} s predicted ({how}), {took:.1f} s seen ({predicted / took - 1:+.0%})")
    assert all(abs(error) < WITHIN for error in errors.values()), errors
