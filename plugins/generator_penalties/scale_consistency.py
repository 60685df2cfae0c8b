"""A penalty on stages that do not draw the same picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pggan_kit import Fakes, Varying, at_least_float32
from pggan_kit.components import Architecture
from pggan_plugins.generator_penalties.weighted_generator_penalty import WeightedGeneratorPenalty


class ScaleConsistency(WeightedGeneratorPenalty):
    """The mean squared difference of each earlier stage's image and G's image, made smaller to that stage's size.

    That each stage's image should be the final one, only smaller, is what CAT asks of its stages (Hyun, Lee and Heo
    2026, "Cross-scale Aligned Supervision for Training GANs"). The formula is ours: means over pixels and over the
    earlier stages; smaller images are means of pixels; both images learn. At the base size the term is 0.

    Args:
        weight: Factor of the term, at least 0; may be per stage or a curve. The default is ours.
        every: Number k of updates of G: every k-th one adds the term, multiplied by k. At least 1.
    """

    def __init__(self, weight: Varying[float] = 1.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def check_architecture(self, architecture: Architecture) -> None:
        """Check that G makes an image at each stage.

        Raises:
            ValueError: It makes the last image only.
        """
        if not getattr(architecture, "images_at_each_stage", False):
            raise ValueError(
                f"ScaleConsistency compares the images of all stages, and {type(architecture).__name__} makes the last "
                "one only; choose an architecture that makes an image at each stage, such as architectures.SkipPGGAN "
                "or architectures.StyleGAN2"
            )

    def __call__(self, fakes: Fakes) -> Tensor:
        """Return the penalty, 0-dim."""
        final = at_least_float32(fakes.images)
        differences = []
        for image in fakes.stage_images[:-1]:
            factor = final.shape[-2] // image.shape[-2]
            differences.append((F.avg_pool2d(final, factor) - image).square().mean())
        if not differences:
            return final.sum() * 0.0
        return torch.stack(differences).mean()
