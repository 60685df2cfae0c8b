"""Penalties on the gradient of D's score with respect to its images."""

from __future__ import annotations

import torch
from torch import Tensor

from pggan_kit import Critic, Scores, Varying, at_least_float32, check_above, image_gradients
from pggan_plugins.penalties.weighted_penalty import WeightedPenalty


class GradientPenalty(WeightedPenalty):
    """The mean of `(|grad D(x)| - target)^2 / target^2` at random points x between reals and fakes.

    The penalty is that of WGAN-GP (Gulrajani et al. 2017), the target that of Karras et al. 2018, appendix A.1 (750
    for CIFAR-10).

    Args:
        weight: Factor of the term, lambda in the paper, at least 0; may be per stage or a curve.
        target: Norm that gradients are pulled towards, above 0; taken over channels and pixels.
        every: Number k of updates of D: every k-th one adds the term, multiplied by k. At least 1.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(self, weight: Varying[float] = 10.0, target: float = 1.0, every: int = 1) -> None:
        super().__init__(weight, every)
        check_above("target", target, 0)
        self.target = target

    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, real_scores: Scores, fake_scores: Scores, mix: Tensor
    ) -> Tensor:
        """Return the penalty, 0-dim; `mix` holds each sample's place between its real (0) and its fake (1)."""
        between = torch.lerp(real, fake.to(real.dtype), mix.view(-1, 1, 1, 1))
        gradients = at_least_float32(image_gradients(critic, between))
        # Not the root of the squared norm: where D is flat, its slope is infinite and would make all weights NaN.
        norms = torch.linalg.vector_norm(gradients, dim=(1, 2, 3))
        return (norms - self.target).square().mean() / self.target**2


class R1(WeightedPenalty):
    """Half the mean of `|grad D(x)|^2` at the reals (Mescheder et al. 2018), so that `weight` is the paper's gamma.

    Args:
        weight: Factor of the term, at least 0; may be per stage or a curve.
        every: Number k of updates of D: every k-th one adds the term, multiplied by k. At least 1.
    """

    def __init__(self, weight: Varying[float] = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, real_scores: Scores, fake_scores: Scores, mix: Tensor
    ) -> Tensor:
        """Return the penalty, 0-dim."""
        return penalise_gradients(critic, real)


class R2(WeightedPenalty):
    """R1 at the fakes (Mescheder et al. 2018); R3GAN (Huang et al. 2024) uses both, with the same weight.

    Args:
        weight: Factor of the term, at least 0; may be per stage or a curve.
        every: Number k of updates of D: every k-th one adds the term, multiplied by k. At least 1.
    """

    def __init__(self, weight: Varying[float] = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, real_scores: Scores, fake_scores: Scores, mix: Tensor
    ) -> Tensor:
        """Return the penalty, 0-dim."""
        return penalise_gradients(critic, fake)


def penalise_gradients(critic: Critic, images: Tensor) -> Tensor:
    """Return half the mean of `|grad D(x)|^2` over images (N, C, h, w), 0-dim."""
    # The squares of half-precision numbers would overflow.
    gradients = at_least_float32(image_gradients(critic, images))
    return gradients.square().sum((1, 2, 3)).mean() / 2
