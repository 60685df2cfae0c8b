"""Runs of every checkpoint format that was released load, are drawn from, and go on to their end in this version."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.format_runs import FORMATS, PAUSE, draw

import pggan_kit
from pggan_kit.runs.snapshot import FORMAT

KEPT = sorted(int(folder.name) for folder in FORMATS.iterdir())


@pytest.fixture(params=KEPT, ids=lambda number: f"format {number}")
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy of the run of a format, as it was when it was stopped."""
    return Path(shutil.copytree(FORMATS / str(request.param), tmp_path / "run"))


def test_a_run_of_the_current_format_is_kept() -> None:
    assert FORMAT in KEPT, (
        "the format is new: run scripts/keep_format.py. The run of a format that no release wrote may be removed; "
        "one of a release stays, and has to be read"
    )


def test_an_old_run_is_drawn_from_as_its_own_version_did(kept: Path, stub: str) -> None:
    generator = pggan_kit.load_generator(kept, plugins=[stub])
    assert generator.images == PAUSE
    with np.load(kept / "drawn.npz") as drawn:
        np.testing.assert_allclose(draw(generator), drawn["images"], atol=1e-5)


def test_an_old_run_goes_on_to_its_end(kept: Path, stub: str) -> None:
    before = (kept / "stats.jsonl").read_text()
    run = pggan_kit.resume(kept, plugins=[stub])
    assert run.state.images == 32 and run.state.phase == "stable"
    assert (kept / "stats.jsonl").read_text().startswith(before)
    assert [row["images"] for row in run.stats] == sorted({row["images"] for row in run.stats})
    assert run.stats[-1]["images"] == 32
    # What was averaged before the stop is in what any width is made of.
    assert (kept / "averages").is_dir()
    assert pggan_kit.load_generator(kept, average=0.1, plugins=[stub]).images == 32
