"""The section about stages: strips from checkpoints, and the numbers of `observers.Coherence`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pggan_kit.report.coherence_section import coherence_section, resize_images
from pggan_kit.report.run_groups import isolate_runs
from pggan_kit.report.run_pictures import RunPictures
from pggan_kit.report.run_record import RunRecord, StageRecord, Ticks


def make_run(name: str, coherence: list[dict[str, Any]]) -> RunRecord:
    """Return a run of 4 and 8 px with ends at 8 and 24."""
    stages = [StageRecord(0, 4, 0, 8, None, 1.0), StageRecord(1, 8, 8, 24, 16, 1.0)]
    return RunRecord(name, Path(name), None, {}, "", "", Ticks([]), [], stages, coherence)


ROWS: list[dict[str, Any]] = [
    {"images": 16, "at": 8, "stage": 1, "size": "8x8", "Coherence/4x4": 0.9, "Coherence_features/4x4": 0.8},
    {"images": 16, "at": 16, "stage": 1, "size": "8x8", "Coherence/4x4": 0.6, "Coherence_features/4x4": 0.5},
    {"images": 24, "at": 24, "stage": 1, "size": "8x8", "Coherence/4x4": 0.4, "Coherence_features/4x4": None},
]


def test_images_are_shown_at_one_size() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 6, 4, 3), dtype=np.uint8)
    larger = resize_images(images, 18)
    assert larger.shape == (2, 18, 12, 3) and (larger[:, 1::3, 2::3] == images).all()
    assert (resize_images(larger, 6) == images).all()
    half = resize_images(images, 3)
    wanted = images.astype(float).reshape(2, 3, 2, 2, 2, 3).mean((2, 4))
    assert half.dtype == np.uint8 and np.abs(half - wanted).max() <= 0.5


def test_a_strip_has_a_row_for_each_latent_and_a_column_for_each_stage() -> None:
    small = np.repeat(np.arange(16, dtype=np.uint8), 16).reshape(16, 4, 4, 1)
    ends = {0: small, 1: np.full((16, 8, 8, 1), 200, np.uint8)}
    pictures = RunPictures(ends=ends, sizes={0: (4, 4), 1: (8, 8)}, clocks={0: 8, 1: 1024})
    section = coherence_section(isolate_runs([make_run("soft", [])]), [pictures])
    ((figure,),) = [group.figures for group in section.groups]
    assert figure.alt == (
        "Strip across the stages of soft: 9 latents from top to bottom, the sizes 4x4, 8x8 from left to right, "
        "enlarged or reduced to one size."
    )
    assert figure.caption == "4x4 after 8, 8x8 after 1,024 images"
    assert figure.height > 4 * figure.width and not section.tables

    # A run of one stage has no strip, and no section.
    one = RunPictures(ends={0: small}, sizes={0: (4, 4)}, clocks={0: 8})
    assert not coherence_section(isolate_runs([make_run("young", [])]), [one]).groups


def test_numbers_at_the_ends_of_stages_are_a_table_and_all_are_a_curve() -> None:
    section = coherence_section(
        isolate_runs([make_run("soft", ROWS), make_run("hard", [])]), [RunPictures(), RunPictures()]
    )
    (table,) = section.tables
    assert table.rows == [["soft", "4x4", "8x8", 24, 0.4, None]]
    ((figure,),) = [group.figures for group in section.groups]
    assert "soft goes from 0.9 at 8 images to 0.4 at 24" in figure.alt
    assert len(section.texts) == 2


@pytest.mark.parametrize("value", ["x", float("nan"), None])
def test_values_that_are_no_numbers_are_left_out_of_the_curve(value: object) -> None:
    rows = [*ROWS, {"images": 32, "at": 32, "stage": 1, "size": "8x8", "Coherence/4x4": value}]
    section = coherence_section(isolate_runs([make_run("soft", rows)]), [RunPictures()])
    assert "to 0.4 at 24" in section.groups[0].figures[0].alt
