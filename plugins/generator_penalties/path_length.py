"""A penalty on how unevenly images follow their styles."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pggan_kit import Fakes, Run, Varying, at_least_float32, check_between, generator_gradients, hookimpl
from pggan_plugins.generator_penalties.weighted_generator_penalty import WeightedGeneratorPenalty


class PathLength(WeightedGeneratorPenalty):
    """The mean of `(|J^T y| - a)^2`, so that a step in the styles changes each image as much (Karras et al. 2020).

    `J^T y` is the gradient of `sum(image * y) / sqrt(h * w)` by the styles, for noise y from N(0, 1); its length is the
    root of the mean over the layers of the square of each layer's, as in the published code. Where the network has no
    styles, it is the gradient by the latents. `a` is a running mean of the lengths, which starts at 0. Here it takes
    part in the penalty as it was before the update (in the code, with 1 % of this one): so ranks and micro-batches do
    not change it.

    Args:
        weight: Factor of the term, at least 0; may be per stage or a curve.
        decay: Share of the running mean that each update with the term replaces, in (0, 1].
        every: Number k of updates of G: every k-th one adds the term, multiplied by k. At least 1.

    Raises:
        ValueError: A value is out of range.

    Attributes:
        memory: The running mean, 0-dim.
    """

    needs_noise = True

    def __init__(self, weight: Varying[float] = 2.0, decay: float = 0.01, every: int = 4) -> None:
        super().__init__(weight, every)
        check_between("decay", decay, 0, 1, low_included=False)
        self.decay = decay
        self.memory = torch.zeros(())

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Begin without a mean."""
        self.memory = torch.zeros(())

    @hookimpl
    def save_state(self, run: Run) -> dict[str, Any]:
        """Return the running mean."""
        return {"mean": self.memory}

    @hookimpl
    def load_state(self, run: Run, saved: dict[str, Any]) -> None:
        """Take the running mean back."""
        self.memory = saved["mean"]

    def __call__(self, fakes: Fakes) -> Tensor:
        """Return the penalty, 0-dim."""
        assert fakes.noise is not None and fakes.memory is not None
        height, width = fakes.images.shape[-2:]
        projected = (fakes.images * fakes.noise).sum() / (height * width) ** 0.5
        source = fakes.latents if fakes.styles is None else fakes.styles
        gradients = at_least_float32(generator_gradients(projected, source))

        # Latents are the styles of one layer. Not the root of a square: where G is flat, its slope is infinite.
        layers = gradients.shape[1] if gradients.dim() == 3 else 1
        lengths = torch.linalg.vector_norm(gradients.flatten(1), dim=1) / layers**0.5
        fakes.measure(lengths)
        return (lengths - fakes.memory).square().mean()

    def remember(self, mean: Tensor) -> None:
        """Move the running mean towards the mean length of an update; a length that is not finite leaves it alone."""
        before = self.memory.to(mean.device, non_blocking=True)
        self.memory = torch.where(mean.isfinite(), torch.lerp(before, mean, self.decay), before)
