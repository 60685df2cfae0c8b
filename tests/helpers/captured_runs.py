"""Tiny runs whose steps are captured in all the ways that there are, and their comparison with eager ones."""

from __future__ import annotations

from pathlib import Path

from helpers.killing import last, rows

from pggan_kit.testing.support import are_equal

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
        "schedule.stable_images = {4: 64, 8: 40}",
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
        "schedule.stable_images = {4: 64, 8: 40}",
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
    "a filter for images": ["train.image_resampling = @resampling.Bilinear()"],
    "resident": [],
    "flipped": ["data.mirror = True"],
    "copied ahead": ["data.mirror = True"],
}


def bind_case(case: str) -> tuple[list[str], str]:
    """Return the lines of a case, and what it leaves of the text of the tiny experiment."""
    return bind_lines([*LONG, *CASES[case]])


def bind_lines(lines: list[str]) -> tuple[list[str], str]:
    """Return lines, and what they leave of the text of the tiny experiment."""
    from conftest import TINY

    if any("train.architecture" in line for line in lines):
        return lines, "".join(line for line in TINY.splitlines(True) if "PGGAN.channels" not in line)
    return lines, TINY


def assert_same_runs(one: str | Path, other: str | Path) -> None:
    ours = last(Path(one))
    theirs = last(Path(other))
    for key in KEYS:
        assert are_equal(ours[key], theirs[key]), key
    assert rows(Path(one)) == rows(Path(other))


def read_log(run: str) -> str:
    """Return the log of a run, without the lines that show a process's command, here the names of tests."""
    lines = (Path(run) / "log.txt").read_text().splitlines()
    return "\n".join(line for line in lines if " began: " not in line)
