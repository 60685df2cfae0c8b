"""Test that no step waits for the device: nothing in it reads a tensor's value, whatever component is chosen.

On a CPU such reads cost nothing and so would go unnoticed; here they are watched for, with the guard as it is on a GPU.
`test_gpu.py` lets CUDA itself watch; `test_experiments.py` has every shipped experiment watched.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.syncing import DispatchWatch, watched

from pggan_kit import Scores
from pggan_kit.testing.support import SyncWatch
from pggan_kit.testing.tiny_runs import train_tiny
from pggan_kit.testing.toys import ToyDataset, ToyLoss
from pggan_plugins.architectures import PGGAN, R3GAN, ResNet, StyleGAN2
from pggan_plugins.augmentations import ADA, DiffAugment
from pggan_plugins.curves import Linear
from pggan_plugins.growth import WarmUpNew
from pggan_plugins.losses import WGANGP, AuxiliaryClassifier, Hinge, LeastSquares, NonSaturating, Relativistic
from pggan_plugins.optimizers import Adam
from pggan_plugins.penalties import R1, R2, Drift, GradientPenalty
from pggan_plugins.updates import Alternating

CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "float16": lambda: {"loss": WGANGP([GradientPenalty(), Drift()]), "precision": "float16"},
    "bfloat16, micro-batches": lambda: {"loss": Hinge([R1(), R2()]), "precision": "bfloat16", "micro_batch": 2},
    "resnet": lambda: {"architecture": ResNet(channels=4), "loss": Hinge()},
    "stylegan2": lambda: {"architecture": StyleGAN2(channels=4), "loss": NonSaturating([R1(every=2)])},
    "adaptive": lambda: {"augmentation": ADA(interval=4, p=0.5), "loss": NonSaturating()},
    "augmented": lambda: {
        "architecture": R3GAN(channels=4, group_size=4),
        "augmentation": DiffAugment(),
        "loss": Relativistic([R1()]),
    },
    "classes": lambda: {
        "architecture": PGGAN(channels=4, conditioning="auxiliary"),
        "dataset": ToyDataset(classes=3),
        "loss": AuxiliaryClassifier(LeastSquares()),
    },
    "options": lambda: {
        "architecture": PGGAN(channels=4, generator_norm="batch", discriminator_norm="spectral", minibatch="none"),
        "loss": Hinge(),
        "growth": WarmUpNew(moments="forget_at_phases"),
        "non_finite": "skip",
    },
}


@pytest.mark.parametrize("case", CASES)
def test_no_step_waits(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = watched(monkeypatch)
    adam = {"generator_optimizer": Adam(lr=Linear(1e-3, 1e-4, start_images=-16)), "discriminator_optimizer": Adam()}
    chosen = {"architecture": PGGAN(channels=4), "update": Alternating(), **adam, **CASES[case]()}
    run = train_tiny(object(), case, tmp_path, chosen)
    assert run.state.steps == 7
    assert waits == []


def test_a_component_that_waits_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Curious(ToyLoss):
        def generator(self, fake: Scores, real: Scores | None) -> dict[str, torch.Tensor]:
            float(fake.score.detach().mean())
            return super().generator(fake, real)

    waits = watched(monkeypatch)
    train_tiny(object(), "curious", tmp_path, {"loss": Curious()})
    assert waits.count("_local_scalar_dense") == 7


READS: dict[str, Callable[[torch.Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "truth": lambda x: bool(x.sum() > 0),
    "float": lambda x: float(x[0]),
    "list": lambda x: x.tolist(),
    "mask": lambda x: x[x > 0],
    "where": lambda x: torch.nonzero(x),
    "numpy": lambda x: x.numpy(),
    "cpu": lambda x: x.cpu(),
    "print": lambda x: f"{x}",
    "repeats": lambda x: x.repeat_interleave(torch.tensor([1, 2])),
    "unique": lambda x: torch.unique(x),
}


@pytest.mark.parametrize("name", READS)
def test_the_watch_sees_what_would_wait(name: str) -> None:
    with SyncWatch() as calls, DispatchWatch() as operators:
        READS[name](torch.tensor([1.0, -1.0]))
    assert calls.found or operators.found


def test_the_watch_ignores_what_would_not_wait() -> None:
    with SyncWatch() as calls, DispatchWatch() as operators:
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).to("cpu", non_blocking=True)
        x = torch.where(x > 0, x, -x)[torch.arange(2)].clone()
        assert x.shape == (2, 3) and x.is_contiguous()
    assert not calls.found and not operators.found
