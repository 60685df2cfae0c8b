"""A metric of your own: here how far fakes are from reals in the statistics of their pixels."""

import math

import torch
from torch import Tensor

from pggan_kit import Component, Quantity, check_above, hookimpl


class Mine:
    """Compares images' mean brightness and contrast.

    Args:
        scale: factor of all values, above 0.

    Raises:
        ValueError: a factor that is not above 0.
    """

    def __init__(self, scale: float = 1.0) -> None:
        check_above("scale", scale, 0)
        self.scale = scale
        # Both are distances: less is better, and none is negative.
        distance = Quantity("lower", range=(0.0, math.inf), scale="log")
        self.quantities = {"brightness": distance, "contrast": distance}

    def describe(self, images: Tensor) -> Tensor | None:
        """(N, C, h, w) in [-1, 1] -> (N, 2): each image's mean and standard deviation. None: not defined there."""
        flat = images.flatten(1)
        return torch.stack([flat.mean(1), flat.std(1, unbiased=False)], 1)

    def fingerprint(self) -> str:
        """Equal where `describe` is; what it says of the reals is kept on disk under it."""
        return "mean and deviation 1"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Values by name, from the descriptions (M, 2) and (N, 2) of all reals and fakes. Lower is nearer."""
        brightness, contrast = (real.mean(0) - fake.mean(0)).abs().tolist()
        return {"brightness": self.scale * brightness, "contrast": self.scale * contrast}


@hookimpl
def components() -> list[Component]:
    """What configs may name: `@metrics.Mine()`."""
    return [Component("metrics", "Mine", Mine)]
