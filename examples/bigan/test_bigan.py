"""Tests of the plugin: the conformance suites of its kinds, and a run with its gin file."""

from pathlib import Path
from typing import Any

import torch
from bigan import BiGAN, Pairs

import pggan_kit
from pggan_kit.testing import UpdateSuite

HERE = Path(__file__).parent
SHORT = [
    "schedule.sizes = (7, 14)",
    "schedule.fade_images = 64",
    "schedule.stable_images = 32",
    "train.tick = 32",
    "datasets.MNIST.limit = 100",
    "train.observers = []",
]


class TestBiGAN(UpdateSuite):
    def make(self) -> BiGAN:
        return BiGAN()

    def choose_arguments(self, component: BiGAN) -> dict[str, Any]:
        """The suite's own discriminator looks at no latents."""
        return {**super().choose_arguments(component), "discriminator_architecture": Pairs(latent_size=8, channels=4)}


def test_the_discriminator_judges_pairs() -> None:
    stage = pggan_kit.testing.make_stages((4,))[0]
    head = Pairs(latent_size=8, channels=4).discriminator_head(stage)
    features = torch.randn(2, 4, 4, 4)
    one, other = (head(features, torch.full((2, 8), value)).score for value in (0.0, 1.0))
    assert one.shape == (2,) and not torch.equal(one, other)


def test_its_experiment_trains(tmp_path: Path) -> None:
    run = pggan_kit.train(HERE / "bigan.gin", SHORT, plugins=[HERE / "bigan.py"], run_dir=tmp_path / "run")
    encoder = run.state.encoder
    assert encoder is not None and encoder.stage.size == "14x14"
    assert encoder(torch.zeros(2, 1, 14, 14)).shape == (2, 64)
    assert run.stats.column("Loss/encoder/logistic")
