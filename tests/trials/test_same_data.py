"""Test that trials whose data have changed in between are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pggan_kit.api.prepare import Prepared, prepare
from pggan_kit.errors import RunError
from pggan_kit.trials.same_data import require_same_data


def write_images(name: str, seed: int) -> None:
    np.save(name, np.random.default_rng(seed).integers(0, 256, (8, 16, 16), dtype=np.uint8))


@pytest.fixture
def read(tiny: Callable[..., str], stub: str) -> Callable[..., Prepared]:
    """`read("train.seed = 1")` reads an experiment on `train.npy` that is evaluated on `test.npy`."""
    sets = ["train.dataset = @datasets.Arrays()", "datasets.Arrays.file = 'train.npy'"]
    sets += ["evaluation.dataset = @test/datasets.Arrays()", "test/datasets.Arrays.file = 'test.npy'"]
    config = tiny(*sets)
    write_images("train.npy", 0)
    write_images("test.npy", 1)
    write_images("other.npy", 2)
    return lambda *bindings: prepare(config, bindings, [stub])


@pytest.mark.parametrize(("name", "place"), [("train.npy", "train"), ("test.npy", "evaluation")])
def test_a_data_set_that_has_changed_is_refused(name: str, place: str, read: Callable[..., Prepared]) -> None:
    for seed in (0, 1):
        require_same_data(read(f"train.seed = {seed}"), Path("out"))
    write_images(name, 9)
    with pytest.raises(
        RunError, match=rf"^{place}\.dataset has other images or labels than in the first trials of out"
    ):
        require_same_data(read(), Path("out"))
    require_same_data(read(), Path("elsewhere"))


def test_trials_may_have_data_sets_of_their_own(read: Callable[..., Prepared]) -> None:
    require_same_data(read(), Path("out"))
    require_same_data(read("datasets.Arrays.file = 'other.npy'"), Path("out"))
    assert len(json.loads(Path("out/data.json").read_text())) == 3
    write_images("other.npy", 9)
    require_same_data(read(), Path("out"))
    with pytest.raises(RunError, match=r"train\.dataset has other images"):
        require_same_data(read("datasets.Arrays.file = 'other.npy'"), Path("out"))


def test_a_damaged_record_is_named(read: Callable[..., Prepared]) -> None:
    Path("out").mkdir()
    Path("out/data.json").write_text("[3]")
    with pytest.raises(RunError, match=r"out/data\.json is damaged"):
        require_same_data(read(), Path("out"))
