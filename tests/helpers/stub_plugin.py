"""A plugin for tests, loaded as a file (`--plugin stub_plugin.py`): components that need no data on disk."""

import hashlib

import numpy as np
import torch

from pggan_kit import Component, hookimpl


class Stub:
    """A data set of `n` images of noise, the same each time, with the labels i % classes.

    Args:
        n: Number of images.
        height, width, channels: Shape of each image.
        classes: Number of classes; 0 for no labels.
    """

    def __init__(self, n: int = 12, height: int = 16, width: int = 16, channels: int = 1, classes: int = 0) -> None:
        self.images = np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)
        self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

    def image(self, i: int) -> np.ndarray:
        return self.images[i]

    def label(self, i: int) -> int:
        if self.classes == 0:
            return 0
        return i % self.classes

    def fingerprint(self) -> str:
        shape = f"{self.images.shape} {self.classes}".encode()
        return hashlib.sha256(shape + self.images.tobytes()).hexdigest()


class Noise:
    """An augmentation that draws from torch's default generator."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images + 0.1 * torch.randn_like(images)


class Meddler:
    """An observer that draws random numbers from torch and images from G in every hook."""

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
