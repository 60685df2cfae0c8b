"""`plan` against a short run of the same experiment: each stage of the yardstick from 4 to 128 pixels, fade and after.

Takes some minutes. On a machine that runs something else as well, prediction and measurement differ by that.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from pggan_kit.api.train import train
from pggan_kit.benchmarking.plan import plan

HERE = Path(__file__).parent
LADDER = HERE / "ladder.gin"

STEPS = {4: 400, 8: 200, 16: 100, 32: 40, 64: 16, 128: 8}
IMAGES = {size: 16 * steps for size, steps in STEPS.items()}
BINDINGS = [f"schedule.fade_images = {IMAGES}", f"schedule.stable_images = {IMAGES}"]

TOLERANCE = 0.2
"""Maximum relative error of a prediction."""


def test_plan_against_a_short_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGGAN_KIT_CACHE", str(tmp_path / "cache"))
    plugins = [str(HERE / "noise.py")]
    rows = plan(LADDER, BINDINGS, plugins)

    # Measure the seconds of each size in a run.
    run = train(LADDER, BINDINGS, run_dir=tmp_path / "run", plugins=plugins)
    measured: dict[str, float] = defaultdict(float)
    for tick in run.files.stats():
        stage = run.schedule.stages[int(tick["Progress/stage"])]
        measured[stage.size] += tick["Timing/seconds"]

    errors = {}
    print()
    for row in rows:
        size = row["size"]
        predicted = row["hours"] * 3600
        errors[size] = predicted / measured[size] - 1
        how = "measured" if row["measured"] else "extrapolated"
        print(f"{size}: {predicted:.1f} s predicted ({how}), {measured[size]:.1f} s in the run ({errors[size]:+.0%})")
    assert all(abs(error) < TOLERANCE for error in errors.values()), errors
