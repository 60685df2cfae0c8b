"""A plugin for tests, given as a file (`--plugin tests/stub_plugin.py`): parts that need no data on disk."""

import hashlib

import numpy as np
import torch

from pggan_kit import Component, hookimpl


class Stub:
    """`n` images of noise, the same each time; label i % classes.

    Args:
        n: how many.
        height, width, channels: of each.
        classes: number of classes; 0: no labels.
    """

    def __init__(self, n: int = 12, height: int = 16, width: int = 16, channels: int = 1, classes: int = 0) -> None:
        self.images = np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)
        self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

    def image(self, i: int) -> np.ndarray:
        return self.images[i]

    def label(self, i: int) -> int:
        return i % self.classes if self.classes else 0

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.images.shape} {self.classes}".encode() + self.images.tobytes()).hexdigest()


class Noise:
    """An augmentation that draws from torch's default generator."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images + 0.1 * torch.randn_like(images)


class Meddler:
    """An observer that draws from torch's generator and from the generator network at each occasion."""

    @hookimpl
    def before_stage(self, run):
        run.generate(run.fixed_latents(3))
        torch.rand(5)

    @hookimpl
    def after_step(self, run):
        torch.rand(5)

    @hookimpl
    def after_tick(self, run):
        run.generate(torch.randn(3, run.experiment.latent_size), average=False)


@hookimpl
def components():
    return [
        Component("datasets", "Stub", Stub),
        Component("augmentations", "Noise", Noise),
        Component("observers", "Meddler", Meddler),
    ]
