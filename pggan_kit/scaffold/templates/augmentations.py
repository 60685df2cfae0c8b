"""An augmentation of your own: here images are turned upside down at random."""

import torch
from torch import Tensor

from pggan_kit import Component, check_between, hookimpl


class Mine:
    """Turns each image that D sees, real or fake, upside down with a probability.

    Args:
        p: Probability of turning an image, in [0, 1].

    Raises:
        ValueError: The probability is outside [0, 1].
    """

    def __init__(self, p: float = 0.5) -> None:
        check_between("p", p, 0, 1)
        self.p = p

    def __call__(self, images: Tensor) -> Tensor:
        """Return augmented images, (N, C, h, w) in [-1, 1] -> the same shape.

        The result is differentiable, and all random numbers come from torch's default generator.
        """
        turned = torch.rand(len(images), device=images.device) < self.p
        return torch.where(turned.view(-1, 1, 1, 1), images.flip(2), images)


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@augmentations.Mine()`."""
    return [Component("augmentations", "Mine", Mine)]
