"""How far the trials of an ablation are, read from its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import STUB
from helpers.ablation_plugin import SWITCH
from helpers.paths import ABLATION_PLUGIN

from pggan_kit.ablation import plan_reading
from pggan_kit.ablation import trial as trials
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.settings import TRUNK
from pggan_kit.ablation.trial_progress import TrialProgress
from pggan_kit.api.prepare import prepare
from pggan_kit.system.json_lines import JsonLines
from pggan_kit.system.locks import hold_when_free

STAGES = [
    {"size": "4x4", "height": 4, "budget": 100},
    {"size": "8x8", "height": 8, "budget": 200},
    {"size": "16x16", "height": 16, "budget": 300},
]
SCHEDULE = {"total": 1000, "stages": STAGES}
"""A schedule whose last stage goes on to the total, from 300 to 1,000."""


@pytest.fixture
def plan(tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan of two variants with two seeds, which begin from a trunk after stage 0; its folder is `out`."""
    monkeypatch.setattr("pggan_kit.ablation.settings.count_pairs_needed", lambda contrasts: 1)
    tiny()
    Path("switch.gin").write_text(SWITCH)
    plan, _ = plan_reading.read_plan("switch.gin", (), [str(STUB), str(ABLATION_PLUGIN)])
    assert plan.branch == 0
    return plan


def begin(name: str, seed: int, *ticks: tuple[int, int, float, float], schedule: Any = SCHEDULE) -> Path:
    """Write the files of a run: for each tick, its end in images, stage, images per second and seconds."""
    folder = trials.locate_trial(Path("out"), name, seed)
    folder.mkdir(parents=True)
    about = {"plugins": [], "schedule": schedule}
    (folder / "run.json").write_text(json.dumps(about))
    for images, stage, rate, seconds in ticks:
        row = {"images": images, "Progress/stage": stage, "Metrics/FID": 7.25}
        JsonLines(folder / "stats.jsonl").append({**row, "Timing/images_per_second": rate, "Timing/seconds": seconds})
    return folder


def end(folder: Path, failed: str | None = None, evaluation_seconds: float = 0.0) -> None:
    rows = [] if failed is not None else [{"metric": "gap", "value": 7.25, "stage": 2, "images": 1000, "floor": None}]
    content = {"failed": failed, "images": 1000, "rows": rows, "revision": "", "hardware": ""}
    (folder / trials.RESULT).write_text(json.dumps(content))
    trained = (folder / "stats.jsonl").stat().st_mtime
    os.utime(folder / trials.RESULT, (trained, trained + evaluation_seconds))


def test_it_says_which_trials_run_wait_and_have_ended(plan: Plan) -> None:
    ticks = ((100, 0, 100.0, 1.0), (300, 1, 50.0, 4.0), (1000, 2, 10.0, 70.0))
    end(begin("linear", 0, *ticks), evaluation_seconds=30.0)
    end(begin("hard", 0, *ticks), failed="a loss became non-finite")
    begin("linear", 1, *ticks[:2], (400, 2, 10.0, 10.0))
    begin("hard", 1)
    progress = TrialProgress(plan, Path("out"), list(plan.list_runs()))
    with hold_when_free(trials.locate_lock(Path("out"), "linear", 1), print):
        details = progress.describe()
    # 600 images at 10 a second, and an evaluation. A trial that waits begins where the trunk ends; they run in turn.
    assert details.rows == [("linear 1", "3/3 16x16", "400 of 1,000", "10", "2 min")]
    assert details.lines == ["1 wait: hard 1", "2 ended, failed: hard 0", "about 3 min left for these trials"]
    assert "7.25" not in str(details), "what trials measure stays hidden"
    assert progress._estimate_rest(("hard", 1), progress._measure_paces()) == pytest.approx(200 / 50 + 700 / 10 + 30)


def test_stages_that_nobody_has_trained_are_guessed_from_their_height(plan: Plan) -> None:
    begin("linear", 0, (100, 0, 100.0, 1.0), (200, 1, 50.0, 2.0))
    progress = TrialProgress(plan, Path("out"), [("linear", 0)])
    with hold_when_free(trials.locate_lock(Path("out"), "linear", 0), print):
        (row,) = progress.describe().rows
    assert row == ("linear 0", "2/3 8x8", "200 of 1,000", "50", "30 s")  # 100 / 50 + 700 * (16 / 8) / 50


def test_a_trunk_ends_with_its_stage_and_a_run_is_evaluated_after_its_last(plan: Plan) -> None:
    """Trunks are trained before the runs, so the time left is that of the trunks alone, and says so."""
    begin(TRUNK, 0, (50, 0, 5.0, 10.0))
    begin("linear", 0, (1000, 2, 10.0, 5.0))
    shown = []
    for key in ((TRUNK, 0), ("linear", 0)):
        progress = TrialProgress(plan, Path("out"), [key])
        with hold_when_free(trials.locate_lock(Path("out"), *key), print):
            shown.append(progress.describe())
    trunk, run = shown
    assert trunk.rows == [("trunk 0", "1/1 4x4", "50 of 100", "5.0", "10 s")]
    assert trunk.lines == ["about 10 s left for these trunks"]
    assert run.rows == [("linear 0", "evaluation", "1,000 of 1,000", "", "")]


@pytest.mark.parametrize("schedule", [None, {}, {"total": "x", "stages": []}, {"total": 5, "stages": [{"size": 3}]}])
def test_a_run_that_does_not_say_what_it_trains_is_shown_without_its_end(plan: Plan, schedule: Any) -> None:
    begin("linear", 0, (200, 1, 50.0, 2.0), schedule=schedule)
    progress = TrialProgress(plan, Path("out"), [("linear", 0), ("hard", 0)])
    with hold_when_free(trials.locate_lock(Path("out"), "linear", 0), print):
        details = progress.describe()
    assert details.rows == [("linear 0", "2", "200", "50", "")]
    assert details.lines == ["1 wait: hard 0"]


def test_rows_are_read_when_there_are_new_ones(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that is drawn every two seconds does not read every file each time."""
    read: list[Path] = []
    original = JsonLines.read

    def note(self: JsonLines, *arguments: Any) -> Any:
        read.append(self.path)
        return original(self, *arguments)

    monkeypatch.setattr(JsonLines, "read", note)
    folder = begin("linear", 0, (200, 1, 50.0, 2.0))
    progress = TrialProgress(plan, Path("out"), [("linear", 0)])
    for _ in range(3):
        progress.describe()
    assert len(read) == 1
    row = {"images": 300, "Progress/stage": 1, "Timing/images_per_second": 50.0, "Timing/seconds": 2.0}
    JsonLines(folder / "stats.jsonl").append(row)
    progress.describe()
    assert len(read) == 2 and progress._watched["linear", 0].images == 300


def test_a_runs_record_says_what_it_trains(train: Callable[..., Any], tiny: Callable[..., str]) -> None:
    train(run_dir="run")
    recorded = json.loads(Path("run/run.json").read_text())["schedule"]
    schedule = prepare(tiny(), plugins=[STUB]).schedule()
    assert recorded["total"] == schedule.total == 40
    assert [stage["size"] for stage in recorded["stages"]] == ["4x4", "8x8", "16x16"]
    assert sum(stage["budget"] for stage in recorded["stages"]) == 40
