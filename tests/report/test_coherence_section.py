"""The section about stages: strips from checkpoints, and the numbers of `observers.Coherence`."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pggan_kit.report.coherence_section import coherence_section, draw_stages_figure
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


def read_strip(src: str) -> np.ndarray:
    """Return the pixels of a figure (h, w) or (h, w, 3)."""
    with Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2]))) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("shapes", [((48, 48), (128, 128)), ((21, 15), (63, 45), (128, 91))])
def test_sizes_of_a_strip_need_not_divide_each_other(shapes: tuple[tuple[int, int], ...]) -> None:
    """Growth by three gives 144 px, which are kept at 128: each latent has its gray at all stages."""
    grays = np.arange(100, 109, dtype=np.uint8)[:, None, None, None]
    ends = {stage: np.broadcast_to(grays, (9, *shape, 1)) for stage, shape in enumerate(shapes)}
    pictures = RunPictures(ends=ends, sizes=dict(enumerate(shapes)), clocks=dict.fromkeys(ends, 8))
    strip = read_strip(draw_stages_figure(make_run("three", []), pictures).src)
    height, width = max(shape for shape in shapes if shape[0] <= 64)
    scale = -(-56 // min(height, width))
    rows = strip[2 + scale * height // 2 :: scale * height + 2, 2 + scale * width // 2 :: scale * width + 2]
    assert rows.T.tolist() == [list(range(100, 109))] * len(shapes)


def test_a_strip_shows_means_and_squares() -> None:
    rng = np.random.default_rng(0)
    middle = rng.integers(0, 256, (9, 32, 32, 1), dtype=np.uint8)
    small = middle[:, ::2, ::2]
    large = rng.integers(0, 256, (9, 128, 128, 1), dtype=np.uint8)
    ends = {0: small, 1: middle, 2: large}
    pictures = RunPictures(ends=ends, sizes=dict.fromkeys(ends, (1, 1)), clocks=dict.fromkeys(ends, 8))
    strip = read_strip(draw_stages_figure(make_run("soft", []), pictures).src)
    cells = [strip[2:66, 2 + place * 66 : 66 + place * 66][::2, ::2] for place in range(3)]
    assert (cells[0] == small[0, ..., 0].repeat(2, 0).repeat(2, 1)).all()
    assert (cells[1] == middle[0, ..., 0]).all()
    means = large[0].astype(float).reshape(32, 4, 32, 4).mean((1, 3))
    assert np.abs(cells[2] - means).max() <= 1, "one rounding for each axis"


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
