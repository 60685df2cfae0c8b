"""Test `train.micro_batch`: a batch worked on in slices moves the weights as the whole one does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pggan_kit.benchmarking.stage_rows import find_largest_micro_batch
from pggan_kit.schedule import ScheduleSettings
from pggan_kit.testing.support import draw_noise
from pggan_kit.testing.tiny_runs import summarize_run, train_tiny
from pggan_kit.testing.toys import ToyDataset
from pggan_kit.training.micro_batches import average_slices, merge_slices, slice_batch
from pggan_plugins.architectures import PGGAN
from pggan_plugins.losses import WGANGP, BinaryCrossEntropy, Relativistic
from pggan_plugins.optimizers import Adam, SharedAdam
from pggan_plugins.penalties import R1, R2, Drift, GradientPenalty
from pggan_plugins.updates import Alternating, JointBatch

BATCH = 8
SCHEDULE = ScheduleSettings((4, 8), fade_images=2 * BATCH, stable_images=2 * BATCH, batch_size=BATCH)


def alternating(loss: Any, n_critic: int = 1) -> dict[str, Any]:
    return {
        "loss": loss,
        "update": Alternating(n_critic),
        "generator_optimizer": Adam(),
        "discriminator_optimizer": Adam(),
    }


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "the paper's": lambda: alternating(WGANGP([GradientPenalty(), Drift()]), n_critic=2),
    "pairs": lambda: alternating(Relativistic([R1(weight=1.0), R2(weight=1.0, every=2)])),
    "one joint batch": lambda: {
        "loss": BinaryCrossEntropy([R1(weight=1.0)]),
        "update": JointBatch(SharedAdam()),
        "generator_optimizer": None,
        "discriminator_optimizer": None,
    },
    "labels": lambda: {**alternating(WGANGP([GradientPenalty()])), "dataset": ToyDataset(classes=3)},
}
"""Components by the name of the case; all with the statistic over groups of four."""


@pytest.fixture
def in_float64() -> Any:
    """Compute in float64: two orders of summation then agree closely enough for Adam, which divides by tiny numbers."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def train_case(folder: Path, case: str, micro_batch: Any) -> dict[str, Any]:
    folder.mkdir()
    conditioning = "projection" if case == "labels" else "none"
    components = {"architecture": PGGAN(channels=4, conditioning=conditioning), "schedule": SCHEDULE}
    run = train_tiny(object(), case, folder, {**components, **CASES[case](), "micro_batch": micro_batch})
    return {**summarize_run(run), "stats": run.files.stats()}


@pytest.mark.parametrize("case", CASES)
def test_slices_move_the_weights_as_the_whole_batch_does(case: str, tmp_path: Path, in_float64: None) -> None:
    whole, sliced = (train_case(tmp_path / str(size), case, size) for size in (None, 4))
    for net in ("generator", "discriminator", "average half_life"):
        for name, value in whole[net].items():
            assert value.dtype == torch.float64
            torch.testing.assert_close(sliced[net][name], value, rtol=1e-8, atol=1e-10)
    for ours, theirs in zip(sliced["stats"], whole["stats"], strict=True):
        for tag in theirs:
            if tag.startswith(("Loss/", "Scores/")):
                assert ours[tag] == pytest.approx(theirs[tag], rel=1e-5), tag


def test_it_may_be_per_stage_and_no_less_than_the_batch_is_the_whole(tmp_path: Path) -> None:
    """Check it bit for bit: the whole batch takes the way that it takes without the setting."""
    whole, same = (train_case(tmp_path / str(i), "pairs", size) for i, size in enumerate((None, {4: BATCH, 8: 100})))
    cut = train_case(tmp_path / "cut", "pairs", {4: BATCH, 8: 4})
    assert all(torch.equal(same["generator"][name], value) for name, value in whole["generator"].items())
    assert any(not torch.equal(cut["generator"][name], value) for name, value in whole["generator"].items())


@pytest.mark.parametrize(("rows", "count", "group"), [(16, 2, 4), (16, 4, 4), (12, 3, 4), (12, 2, 3), (8, 4, 2)])
def test_groups_are_those_of_the_whole_batch(rows: int, count: int, group: int) -> None:
    """Check that sample g * M + m of M groups is in group m, as the paper's code has it."""

    def list_groups(batch: Tensor) -> set[frozenset[int]]:
        many = len(batch) // group
        return {frozenset(int(batch[g * many + m]) for g in range(group)) for m in range(many)}

    batch = {"rows": torch.arange(rows), "none": None}
    groups = [list_groups(piece["rows"]) for piece in slice_batch(batch, count)]  # type: ignore[arg-type]
    assert set.union(*groups) == list_groups(torch.arange(rows))


def test_what_is_kept_comes_back_in_the_batch_s_order() -> None:
    batch = {"images": draw_noise(12, 3, 2, 2), "score": draw_noise(12, seed=1)}
    pieces: list[Any] = list(slice_batch(batch, 3))
    assert [len(piece["score"]) for piece in pieces] == [4, 4, 4]
    again = merge_slices(pieces)
    assert all(torch.equal(again[name], value) for name, value in batch.items())
    means = average_slices([{"mean": piece["score"].double().mean()} for piece in pieces])
    assert float(means["mean"]) == pytest.approx(float(batch["score"].double().mean()), abs=1e-12)


def test_slices_lie_in_memory_without_gaps() -> None:
    """Compiled code fixes the strides of what it is given; the order of dimensions stays, and no batch is copied."""
    images = draw_noise(12, 3, 2, 2)
    batch = {"images": images, "last": images.contiguous(memory_format=torch.channels_last), "labels": torch.arange(12)}
    for index, piece in enumerate(slice_batch(batch, 3)):
        for name, rows in piece.items():
            assert rows is not None and torch.equal(rows, batch[name][index::3])
        strides = {name: rows.stride() for name, rows in piece.items() if rows is not None}
        assert strides == {"images": (12, 4, 2, 1), "last": (12, 1, 6, 3), "labels": (1,)}
    (whole,) = slice_batch({"images": images}, 1)
    assert whole["images"] is not None and whole["images"].data_ptr() == images.data_ptr()
    (views,) = slice_batch({"rows": images[::2]}, 1)
    assert views["rows"] is not None and views["rows"].is_contiguous()


def test_rows_that_do_not_divide_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^micro_batch cuts a batch into 2 slices, over which x's 3 rows do not divide"
    ):
        list(slice_batch({"x": torch.zeros(3)}, 2))


def test_a_size_that_does_not_divide_the_batch_is_refused(rejected: Callable[..., str]) -> None:
    rejected(r"train\.micro_batch 3 does not divide a process's 4 images a batch at 4x4", "train.micro_batch = 3")


@pytest.mark.parametrize(
    ("rows", "activations", "room", "size"),
    [(16, 100.0, 100.0, 16), (16, 100.0, 99.0, 8), (16, 160.0, 10.0, 1), (12, 120.0, 65.0, 6), (16, 160.0, 9.0, None)],
)
def test_what_plan_recommends(rows: int, activations: float, room: float, size: int | None) -> None:
    assert find_largest_micro_batch(rows, activations, room) == size
