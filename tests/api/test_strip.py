"""`strip`: columns for the ends of stages and the alphas of fades, drawn from the checkpoints that were kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image

from pggan_kit import SettingError, load_generator
from pggan_kit.api.sample import draw
from pggan_kit.api.strip import write_strip
from pggan_kit.runs.generators import FADING

Cli = Callable[..., Result]


def test_columns_are_the_ends_and_the_fades(train: Any, cli: Cli, refused: Callable[..., str], stub: str) -> None:
    train(run_dir="run")
    columns = write_strip(Path("run"), Path("a.png"), count=3, seed=4, steps=3)
    fade = [0.0, 0.5, 1.0]
    assert [(column.size, column.alpha) for column in columns] == [
        ("4x4", None),
        *[("8x8", alpha) for alpha in fade],
        ("8x8", None),
        *[("16x16", alpha) for alpha in fade],
        ("16x16", None),
    ]
    assert [column.clock for column in columns] == [8, 16, 16, 16, 24, 32, 32, 32, 40]
    for column in columns:
        if column.alpha is None:
            generator = load_generator("run", stage=column.size)
        else:
            generator = load_generator("run", stage=column.size, checkpoint=FADING)
        np.testing.assert_array_equal(column.images, draw(generator, 3, 4, alpha=column.alpha))

    # Each image in its cell, enlarged; the words are above.
    with Image.open("a.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 * 17 + 3 * 114 + 2, 9 * 114 + 2)
    for number, column in enumerate(columns):
        side = column.images.shape[1]
        for row in range(3):
            top, left = 34 + 2 + 114 * row, 2 + 114 * number
            cell = pixels[top : top + 112, left : left + 112]
            np.testing.assert_array_equal(
                cell, column.images[row, ..., 0].repeat(112 // side, 0).repeat(112 // side, 1)
            )
    assert (pixels[:34] > 200).any()

    result = cli("strip", "run", "--out", "b.png", "--count", 1, "--steps", 0)
    assert result.exit_code == 0 and "3 columns" in result.stderr
    refused(cli("strip", "run", "--out", "b.gif"), r"--out b\.gif: name a \.png file")
    refused(cli("strip", "run", "--out", "b.png", "--average", "nobody"), r"--average nobody: .*it has half_life$")
    for wrong in ("0.05", "a.pt"):
        refused(cli("strip", "run", "--out", "b.png", "--average", wrong), rf"--average {wrong}: .*give the name")
    for wrong in ("--count 0", "--steps -1", "--seed -1"):
        assert cli("strip", "run", "--out", "b.png", *wrong.split()).exit_code == 2
    for name in ("count", "steps"):
        with pytest.raises(SettingError, match=name):
            write_strip(Path("run"), Path("a.png"), **{name: -1})

    # A branch shows the stages of the run that it began from, which its own checkpoints lack.
    branch = cli("train", "tiny.gin", "--from", "run@8x8", "--run-dir", "branch", "--plugin", stub)
    assert branch.exit_code == 0, branch.output
    sizes = [column.size for column in write_strip(Path("branch"), Path("c.png"), steps=0)]
    assert sizes == ["4x4", "8x8", "16x16"]


def test_a_hard_switch_has_no_fade(train: Any) -> None:
    train("train.switch = @switches.Hard()", "datasets.Stub.channels = 3", run_dir="run")
    columns = write_strip(Path("run"), Path("a.png"), count=1)
    assert [column.alpha for column in columns] == [None] * 3
    with Image.open("a.png") as picture:
        assert picture.mode == "RGB"
    assert torch.is_grad_enabled()
