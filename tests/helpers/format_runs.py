"""The tiny run that is kept of each checkpoint format, and what is drawn from it."""

from typing import Any

import numpy as np
import torch
from helpers.paths import TESTS

FORMATS = TESTS / "formats"
"""Folder with a run of each format that was released, named by its number."""

PAUSE = 16
"""Place of the clock at which the run was stopped: in the middle of its fade, of 32 images in all."""

SEED = 3

LINES = (
    "schedule.sizes = (4, 8)",
    "schedule.fade_images = 8",
    "schedule.stable_images = 12",
    "schedule.batch_size = 4",
    "train.architecture = @architectures.PGGAN()",
    "architectures.PGGAN.channels = 4",
    "train.resampling = @resampling.Nearest()",
    "train.loss = @losses.Hinge()",
    "train.update = @updates.Alternating()",
    "train.switch = @switches.Linear()",
    "train.dataset = @datasets.Stub()",
    "train.generator_optimizer = @g/optimizers.Adam()",
    "train.discriminator_optimizer = @d/optimizers.Adam()",
    "train.averages = [@averages.HalfLife(), @averages.PowerFunction()]",
    "train.latent_size = 8",
    "train.tick = 8",
    "train.device = 'cpu'",
)


def draw(generator: Any) -> np.ndarray:
    """Return four images of a trained generator, float32 (4, C, h, w), of latents that are the same each time."""
    latents = torch.from_numpy(np.random.default_rng(SEED).standard_normal((4, 8)).astype(np.float32))
    with torch.no_grad():
        images: np.ndarray = generator(latents).numpy()
    return images
