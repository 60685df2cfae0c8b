"""Penalties on the gradient of D's score with respect to its images."""

from __future__ import annotations

import torch
from torch import Tensor

from pggan_kit import Critic, PerStage, Scores, check_above, image_gradients
from pggan_plugins.penalties.base import Weighted


class GradientPenalty(Weighted):
    """The mean of `(|grad D(x)| - target)^2 / target^2` at random points x between reals and fakes.

    WGAN-GP (Gulrajani et al. 2017); the target as in Karras et al. 2018, appendix A.1 (750 for CIFAR-10).

    Args:
        weight: lambda.
        target: the norm that gradients are drawn to, above 0; taken over channels and pixels.
        every: see `Weighted`.
    """

    def __init__(self, weight: PerStage[float] = 10.0, target: float = 1.0, every: int = 1) -> None:
        super().__init__(weight, every)
        check_above("target", target, 0)
        self.target = target

    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, real_scores: Scores, fake_scores: Scores, mix: Tensor
    ) -> Tensor:
        """0-dim; `mix` holds each sample's place between its real (0) and its fake (1)."""
        between = torch.lerp(real, fake.to(real.dtype), mix.view(-1, 1, 1, 1))
        # Not the root of the squared norm: where D is flat, that has an infinite slope and would spoil all weights.
        norm = torch.linalg.vector_norm(at_least_float32(image_gradients(critic, between)), dim=(1, 2, 3))
        return (norm - self.target).square().mean() / self.target**2


class R1(Weighted):
    """Half the mean of `|grad D(x)|^2` at the reals (Mescheder et al. 2018), so that weight is their gamma."""

    def __init__(self, weight: PerStage[float] = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, real_scores: Scores, fake_scores: Scores, mix: Tensor
    ) -> Tensor:
        """0-dim."""
        return zero_centred(critic, real)


class R2(Weighted):
    """R1 at the fakes (Mescheder et al. 2018); R3GAN (Huang et al. 2024) uses both, with one weight."""

    def __init__(self, weight: PerStage[float] = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, real_scores: Scores, fake_scores: Scores, mix: Tensor
    ) -> Tensor:
        """0-dim."""
        return zero_centred(critic, fake)


def zero_centred(critic: Critic, images: Tensor) -> Tensor:
    """0-dim: half the mean of `|grad D(x)|^2` over these images (N, C, h, w)."""
    return squared_norm(image_gradients(critic, images)).mean() / 2


def squared_norm(gradient: Tensor) -> Tensor:
    """(N, C, h, w) -> (N,): the sum of squares over channels and pixels, in float32 or better."""
    return at_least_float32(gradient).square().sum((1, 2, 3))


def at_least_float32(x: Tensor) -> Tensor:
    """The same numbers; squares of half-precision ones would overflow."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
