"""Test captured steps with graphs that are replayed on the CPU: equal to eager steps bit for bit, or not captured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import STUB, TINY
from helpers.killing import last, rows
from helpers.replayed_graphs import ReplayRecorder
from torch import Tensor

import pggan_kit
from pggan_kit import Component, hookimpl
from pggan_kit.data import device_feed
from pggan_kit.data.device_feed import ResidentFeed
from pggan_kit.runs import learning_rate_tensors
from pggan_kit.testing.support import are_equal
from pggan_kit.training import capture, loop, non_finite
from pggan_plugins.losses import Hinge

KEYS = ("generator", "discriminator", "averages", "optimizers", "scalers", "components", "images")
"""What is compared of the last checkpoints."""

LONG = [
    "schedule.sizes = (4, 8)",
    "schedule.fade_images = {4: 0, 8: 36}",
    "schedule.stable_images = {4: 40, 8: 40}",
    "train.tick = 20",
]
"""Two stages and a fade of 9 or 10 steps each."""

CASES: dict[str, list[str]] = {
    "WGAN-GP": ["train.loss = @losses.WGANGP()"],
    "lazy R1 whose weight moves": [
        "losses.Hinge.penalties = [@penalties.R1()]",
        "penalties.R1.every = 2",
        "penalties.R1.weight = @curves.Linear()",
        "curves.Linear.begin = 1.0",
        "curves.Linear.end = 5.0",
        "curves.Linear.end_images = 100",
    ],
    "a rate that moves": [
        "optimizers.Adam.lr = @curves.Linear()",
        "curves.Linear.begin = 1e-2",
        "curves.Linear.end = 1e-3",
        "curves.Linear.end_images = 100",
    ],
    "bfloat16": ["train.precision = 'bfloat16'"],
    "float16": ["train.precision = 'float16'"],
    "slices": ["train.micro_batch = 2"],
    "two critics": ["updates.Alternating.n_critic = 2"],
    "DiffAugment": ["train.augmentation = @augmentations.DiffAugment()"],
    "ADA": ["train.augmentation = @augmentations.ADA()", "augmentations.ADA.interval = 8"],
    "path length": [
        "train.architecture = @architectures.StyleGAN2()",
        "architectures.StyleGAN2.channels = 4",
        "train.generator_penalties = [@generator_penalties.PathLength()]",
        "generator_penalties.PathLength.every = 2",
    ],
    "batch norm and one optimizer": [
        "train.architecture = @architectures.Tutorial()",
        "architectures.Tutorial.generator_channels = 4",
        "architectures.Tutorial.discriminator_channels = 4",
        "train.update = @updates.JointBatch()",
        "updates.JointBatch.optimizer = @optimizers.SharedAdam()",
        "train.generator_optimizer = None",
        "train.discriminator_optimizer = None",
    ],
    "resident": [],
    "flipped": ["data.mirror = True"],
}


@pytest.fixture
def train(tiny: Callable[..., str]) -> Callable[..., Any]:
    """Train the tiny experiment, whose architecture has its own settings; see the fixture of this name."""

    def run(*lines: str, run_dir: str) -> Any:
        base = "".join(line for line in TINY.splitlines(True) if "PGGAN.channels" not in line)
        return pggan_kit.train(tiny(*lines, base=base), run_dir=run_dir, plugins=[str(STUB)])

    return run


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> ReplayRecorder:
    """Let this CPU be a device that captures, whose checks do not wait."""
    made = ReplayRecorder()

    def make_recorder(experiment: Any, device: Any) -> ReplayRecorder | None:
        return None if experiment.capture == "never" else made

    monkeypatch.setattr(loop, "make_recorder", make_recorder)
    monkeypatch.setattr(learning_rate_tensors, "uses_rate_tensors", lambda device: True)
    monkeypatch.setattr(non_finite, "checks_each_step", lambda device: False)
    return made


def assert_same_runs(one: str, other: str) -> None:
    for key in KEYS:
        assert are_equal(last(Path(one))[key], last(Path(other))[key]), key
    assert rows(Path(one)) == rows(Path(other))


def read_log(run: str) -> str:
    return (Path(run) / "log.txt").read_text()


@pytest.mark.parametrize("case", CASES)
def test_a_captured_run_equals_an_eager_one(
    case: str, train: Callable[..., Any], recorder: ReplayRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grow and fade, with alpha, latents, rates and penalties that move from step to step."""
    if case in ("resident", "flipped"):
        monkeypatch.setattr(loop, "choose_feed", lambda source, device, limit: ResidentFeed(source, device))
    lines = [*LONG, *CASES[case]]
    if not any(".channels" in line or "Tutorial" in line for line in lines):
        lines.append("architectures.PGGAN.channels = 4")
    train(*lines, "train.capture = 'never'", run_dir="eager")
    assert recorder.replays == 0

    train(*lines, run_dir="captured")
    assert_same_runs("captured", "eager")
    assert "not captured" not in read_log("captured")
    assert read_log("captured").count("are captured") >= 3
    # Each of the three regions replays most of its steps.
    assert recorder.replays >= 6
    assert recorder.forgotten >= 2
