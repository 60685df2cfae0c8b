"""Test that penalties keep their contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pggan_kit.components import Penalty, Scores
from pggan_kit.testing.penalty_checks import (
    MEAN_TOLERANCE,
    require_finite_number,
    require_finite_where_flat,
    require_gradients_to_weights,
    require_unweighted,
)
from pggan_kit.testing.suite import StepSuite
from pggan_kit.testing.support import check_gradients, draw_noise, measure_difference, require
from pggan_kit.testing.toys import ToyLoss


class SmoothCritic(nn.Module):
    """A critic (N, channels, 3, 3) -> Scores, smooth in images and weights, and nowhere linear.

    Args:
        channels: Channels of the images.
        size: Size of the initial weights; 0 makes a critic that is flat.
        dtype: Type of the weights.
    """

    def __init__(self, channels: int = 1, size: float = 0.5, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.first = nn.Parameter(size * draw_noise(3, channels, 2, 2, dtype=dtype))
        self.second = nn.Parameter(size * draw_noise(12, seed=1, dtype=dtype))

    def forward(self, images: Tensor) -> Scores:
        """Return the scores of images."""
        return self.judge(images, self.first, self.second)

    @staticmethod
    def judge(images: Tensor, first: Tensor, second: Tensor) -> Scores:
        """Return sinh of a weighted sum of tanh of a convolution, with weights from elsewhere."""
        features = torch.nn.functional.conv2d(images, first).tanh().flatten(1)
        return Scores((features @ second).sinh())


class PenaltySuite(StepSuite):
    """Penalties, on a small smooth critic.

    Attributes:
        image_channels: Channel counts to try: gray and colour.
        second_order: Whether the penalty's gradient to D's weights is to be differentiable again.
    """

    kind = "penalties"
    image_channels: Sequence[int] = (1, 3)
    second_order = True

    def choose_arguments(self, component: Any) -> dict[str, Any]:
        """Return the component as the one penalty of a logistic loss."""
        return {"loss": ToyLoss([component])}

    def value(
        self, penalty: Penalty, critic: Any, channels: int = 1, count: int = 4, rows: slice = slice(None)
    ) -> Tensor:
        """Return the penalty of a fixed batch.

        Args:
            penalty: The penalty.
            critic: The critic, a `SmoothCritic` or a function of float64 images.
            channels: Channels of the images.
            count: Samples in the batch.
            rows: The samples of the batch that are given.
        """
        # Inputs have the type of the critic's weights.
        dtype = torch.float64
        if isinstance(critic, nn.Module):
            dtype = next(iter(critic.parameters())).dtype
        real, fake = (draw_noise(count, channels, 3, 3, seed=s, dtype=dtype)[rows] for s in (2, 3))
        mix = torch.linspace(0.1, 0.9, count, dtype=dtype)[rows]
        torch.manual_seed(0)
        return penalty(critic, real, fake, critic(real), critic(fake), mix)

    def test_value(self) -> None:
        """Require one finite number, for gray and colour images and any batch size."""
        for channels in self.image_channels:
            for count in (1, 2, 4):
                value = self.value(self.make(), SmoothCritic(channels), channels=channels, count=count)
                where = f"for a batch of {count} with {channels} channels"
                require_finite_number(value, where)

    def test_runs_critic(self) -> None:
        """Require a penalty that says `runs_critic = False` to look at the given scores alone."""
        penalty = self.make()
        critic = SmoothCritic()
        calls: list[Any] = []
        critic.register_forward_hook(lambda *call: calls.append(call))
        self.value(penalty, critic)
        # The scores that it is given take two.
        require(
            getattr(penalty, "runs_critic", True) or len(calls) == 2,
            "runs_critic is False, and the penalty calls the critic: leave runs_critic out",
        )

    def test_gradients_flow(self) -> None:
        """Require gradients to the critic's weights."""
        critic = SmoothCritic()
        value = self.value(self.make(), critic)
        require_gradients_to_weights(value, critic, "the critic")

    def test_gradcheck(self) -> None:
        """Require gradients to the critic's weights, of first and second order, to equal finite differences."""
        penalty = self.make()
        weights = [param.detach().clone().requires_grad_(True) for param in SmoothCritic().parameters()]

        def penalise(first: Tensor, second: Tensor) -> Tensor:
            return self.value(penalty, lambda images: SmoothCritic.judge(images, first, second))

        check_gradients(penalise, weights, "the penalty as a function of the critic's weights", self.second_order)

    def test_is_a_mean(self) -> None:
        """Require the mean of the penalties of a batch's slices to be that of the batch.

        Ranks and micro-batches take every second sample, so real i, fake i and number i of a batch stay together.
        """
        penalty = self.make()
        critic = SmoothCritic()
        whole = self.value(penalty, critic)
        slices = torch.stack([self.value(penalty, critic, rows=slice(start, None, 2)) for start in range(2)]).mean()
        require(
            measure_difference(slices, whole) <= MEAN_TOLERANCE,
            f"the penalty of a batch is {whole.item():.4g}, and the mean over its slices is {slices.item():.4g}: it "
            "must be a mean over samples",
        )

    def test_leaves_weight_to_the_update(self) -> None:
        """Require an unweighted term: the update multiplies it by `weight` and `every`."""
        critic = SmoothCritic()
        require_unweighted(self.make, lambda penalty: self.value(penalty, critic), "the update")

    def test_flat_critic(self) -> None:
        """Require a finite value and gradient where D's gradient is 0: the square root has no derivative there."""
        critic = SmoothCritic(size=0.0)
        value = self.value(self.make(), critic)
        require_finite_where_flat(value, critic, "critic")
