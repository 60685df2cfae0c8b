"""A metric of your own: here the distance of fakes from reals in the statistics of their pixels."""

import math

import torch
from torch import Tensor

from pggan_kit import Component, Quantity, check_above, hookimpl


class Mine:
    """Compares the mean brightness and contrast of images.

    Args:
        scale: Factor of all values, above 0.

    Raises:
        ValueError: The factor is not above 0.
    """

    def __init__(self, scale: float = 1.0) -> None:
        check_above("scale", scale, 0)
        self.scale = scale

        # Both values are distances: lower is better, and none is negative.
        distance = Quantity("lower", range=(0.0, math.inf), scale="log")
        self.quantities = {"brightness": distance, "contrast": distance}

    def describe(self, images: Tensor) -> Tensor | None:
        """Return the mean and standard deviation of each image, (N, C, h, w) in [-1, 1] -> (N, 2).

        A metric that is not defined for images of this size returns None.
        """
        flat = images.flatten(1)
        return torch.stack([flat.mean(1), flat.std(1, unbiased=False)], 1)

    def fingerprint(self) -> str:
        """Return a text that is equal if `describe` is; it names descriptions of reals that are kept on disk."""
        return "mean and deviation 1"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return values by name, from the descriptions (M, 2) and (N, 2) of all reals and fakes."""
        brightness, contrast = (real.mean(0) - fake.mean(0)).abs().tolist()
        return {"brightness": self.scale * brightness, "contrast": self.scale * contrast}


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@metrics.Mine()`."""
    return [Component("metrics", "Mine", Mine)]
