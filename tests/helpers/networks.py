"""Networks of an architecture, for tests that compute their outputs by hand."""

from __future__ import annotations

from typing import Any

from pggan_kit.components import Resampling
from pggan_kit.growth.networks import Discriminator, Generator
from pggan_kit.layers.resampling import Area
from pggan_kit.testing import make_stages
from pggan_kit.testing.support import perturb

LATENT_SIZE = 5


def make_networks(
    architecture: Any,
    sizes: Any = (4, 8),
    *,
    classes: int = 0,
    bridged: bool = False,
    resampling: Resampling | None = None,
    training: bool = True,
) -> tuple[Generator, Discriminator]:
    """Return networks of colour images, grown to the last size, in float64, with every weight moved.

    Args:
        architecture: The architecture.
        sizes: Sizes of the stages.
        classes: Number of classes; 0 without labels.
        bridged: Whether the old path is kept beside the last block.
        resampling: How the blocks resample; None for area.
        training: Whether batch normalisation and the like are those of training.
    """
    # Grown, and with weights that do not start at zero.
    stages = make_stages(sizes, 3, classes)
    pair = (architecture, resampling or Area(), Area(), 0)
    nets = Generator(*pair, LATENT_SIZE, stages[0]), Discriminator(*pair, stages[0])
    for net in nets:
        for stage in stages[1:]:
            net.grow(stage, bridged and stage is stages[-1])
        perturb(net)
        net.double().train(training)
    return nets
