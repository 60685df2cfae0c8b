"""Test the intervals of what a run does at ticks: each has its own, and what goes back stays exact."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.killing import KillAt, StopAt, assert_same_run, events, in_a_child, pictures, rows
from helpers.paths import STUB_PLUGIN

from pggan_kit import Component, Quantity
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.training.measures import Meter, describe_shares

STUB = str(STUB_PLUGIN)

INTERVALS = [
    "schedule.sizes = (4, 8)",
    "schedule.fade_images = 24",
    "schedule.stable_images = {4: 64, 8: 56}",
    "train.tick = 8",
    "train.checkpoint_every = {4: 24, 8: 40}",
    "train.diversity_every = 32",
    "train.keep = 100",
    "train.metrics = [@metrics.Level()]",
    "evaluation.every = 16",
    "evaluation.count = 4",
    "train.observers = [@observers.TensorBoard(), @observers.Samples(), @observers.Growth(), @observers.Coherence()]",
    "observers.TensorBoard.count = 4",
    "observers.TensorBoard.every = 40",
    "observers.Samples.count = 4",
    "observers.Samples.every = 32",
    "observers.Growth.every = {4: 'phase', 8: 24}",
    "observers.Coherence.count = 4",
    "observers.Coherence.every = 48",
]
"""Ticks at 8, 16, ..., 144; phases end at 64, 88 and 144."""


class Level:
    """A metric: the mean of all pixels."""

    quantities = {"Level": Quantity("higher")}  # noqa: RUF012

    def describe(self, images: torch.Tensor) -> torch.Tensor:
        return images.double().mean((1, 2, 3))

    def fingerprint(self) -> str:
        return "level"

    def compare(self, real: torch.Tensor, fake: torch.Tensor) -> dict[str, float]:
        return {"Level": float(fake.mean())}


LEVEL = Component("metrics", "Level", Level)
PLUGINS = [STUB, LEVEL]


def list_checkpoints(run: Path) -> list[int]:
    return [entry.images for entry in RunDirectory(run).checkpoints().read_entries()]


def test_each_has_its_interval_and_a_run_that_was_stopped_and_killed_is_the_same(train: Callable[..., Any]) -> None:
    whole = train(*INTERVALS, run_dir="whole", plugins=(LEVEL,))
    found = {
        tag: [row["images"] for row in whole.stats if tag in row] for tag in ("Progress/diversity", "Metrics/Level")
    }
    assert whole.stats.column("images") == list(range(8, 145, 8))
    assert found["Progress/diversity"] == [32, 64, 88, 96, 128, 144]
    assert found["Metrics/Level"] == [16, 32, 48, 64, 80, 88, 96, 112, 128, 144]
    assert list_checkpoints(Path("whole")) == [0, 24, 48, 64, 80, 88, 120, 144]
    grids = sorted(int(path.name[:9]) for path in Path("whole/samples").glob("0*"))
    # Twice at 64, where the growth is shown too.
    assert grids == [32, 64, 64, 88, 96, 128, 144]

    # Stopped between ticks, and at one without a checkpoint; killed where ticks have followed the last checkpoint.
    with pytest.raises(Interrupted):
        train(*INTERVALS, run_dir="run", plugins=(LEVEL, StopAt(20)))
    with pytest.raises(Interrupted):
        resume("run", plugins=[*PLUGINS, StopAt(40)])
    assert list_checkpoints(Path("run")) == [0, 24, 40]
    for images in (60, 116):
        assert in_a_child(lambda images=images: resume("run", plugins=[*PLUGINS, KillAt(images)])) == -signal.SIGKILL
    assert list_checkpoints(Path("run")) == [0, 24, 48, 64, 80, 88]
    resume("run", plugins=PLUGINS)
    assert_same_run(Path("run"), Path("whole"))
    assert events(Path("run")) == events(Path("whole"))
    assert pictures(Path("run")) == pictures(Path("whole"))
    assert list_checkpoints(Path("run")) == list_checkpoints(Path("whole"))
    assert Path("run/coherence.jsonl").read_bytes() == Path("whole/coherence.jsonl").read_bytes()

    # Where the time went; what follows a row is in the next one.
    for row in whole.stats[1:]:
        parts = {tag: share for tag, share in row.items() if tag.startswith("Timing/share/")}
        assert 0 < sum(parts.values()) <= 1
        assert parts["Timing/share/updates"] == pytest.approx(row["Timing/update_seconds"] / row["Timing/seconds"])
    shares = {row["images"]: row.get("Timing/share/Samples", 0.0) for row in whole.stats}
    # Of sums, since a single row may hold anything on a machine that is busy.
    assert sum(shares[images] for images in (40, 72, 104, 136)) > sum(shares[images] for images in (32, 64, 96, 128))
    assert "Timing/share/TensorBoard" in whole.stats.columns and "Timing/share/metrics" in whole.stats.columns
    assert "shares of the time: updates " in Path("whole/log.txt").read_text()
    assert not any(tag.startswith("Timing/") for row in rows(Path("run")) for tag in row)


def test_the_time_is_shared_among_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("pggan_kit.training.measures.time.perf_counter", lambda: clock[0])
    meter = Meter(0)
    clock[0] = 8.0
    meter.add_update(6.0)
    with meter.time_part("checkpoints"):
        clock[0] = 9.0
    clock[0] = 10.0
    shares = meter.compute_shares({"Samples": 0.5})
    assert shares == {"updates": 0.6, "checkpoints": 0.1, "Samples": 0.05}
    assert describe_shares(shares) == "updates 60.0 %, checkpoints 10.0 %, Samples 5.0 %, the rest 25.0 %"
