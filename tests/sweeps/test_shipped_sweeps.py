"""The sweeps under experiments/sweeps/, and the one of the page on sweeps, can be read and choose by tuning data."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import ROOT

from pggan_kit.sweeps.plan_reading import read_sweep

pytest.importorskip("optuna", reason="needs the extra sweep: make test-extras")
pytest.importorskip("safetensors", reason="needs the extra metrics")

FILES = sorted((ROOT / "experiments/sweeps").glob("*.gin"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the names of the original files, with empty pictures: a few more than the split to learn."""
    folder = tmp_path_factory.mktemp("digits")
    for name, count in (("train", 50_016), ("t10k", 40)):
        images = np.zeros((count, 28, 28), dtype=np.uint8)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, *images.shape) + images.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + labels.tobytes())
    return folder


def test_shipped_sweeps_and_that_of_the_page_are_pruned_by_tuning_data(digits: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs/sweeps.md").read_text()
    (block,) = [text for text in re.findall(r"```gin\n(.*?)```", page, re.DOTALL) if "sweep.base" in text]
    mine = tmp_path / "mine.gin"
    mine.write_text(block.replace("'mnist.gin'", f"'{(ROOT / 'experiments/mnist.gin').as_posix()}'"))
    assert FILES
    for file in (*FILES, mine):
        assert file == mine or f"experiments/sweeps/{file.name}" in page
        plan = read_sweep(file, [f"datasets.MNIST.folder = '{digits}'"]).plan
        assert plan.sizes == ["7x7", "14x14", "28x28"]
        assert (plan.metric, plan.direction, plan.scale) == ("FID", "lower", "log")
        assert 'split = "tuning"' in "".join(plan.evaluation)
        assert "datasets.MNIST.split = 'learning'" in plan.config
