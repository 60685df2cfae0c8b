"""The suites of losses and of penalties."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pggan_kit.components import Loss, Penalty, Scores
from pggan_kit.plugin_host.contracts import require_protocol
from pggan_kit.testing.base import TrainedSuite
from pggan_kit.testing.support import checked, difference, labels_for, noise, require
from pggan_kit.testing.toys import ToyLoss, summed


class LossSuite(TrainedSuite):
    """An adversarial loss.

    Attributes:
        classes: above 0 where the loss reads class logits: scores then carry them, and labels.
        batch_sizes: to try.
        neutral: a score between what reals and what fakes are drawn to.
        extreme: scores of this size must still give finite terms and gradients.
        second_order: whether the gradient is differentiable again (it is not where the loss says so).
    """

    kind = "losses"
    classes = 0
    batch_sizes: Sequence[int] = (1, 2, 5)
    neutral = 0.5
    extreme = 1e4
    second_order = True

    def chosen(self, part: Any) -> dict[str, Any]:
        """As `train.loss`."""
        return {"loss": part}

    def scores(self, score: Tensor) -> Scores:
        """What a discriminator would have said: this score, and where there are classes, logits and labels."""
        if not self.classes:
            return Scores(score)
        logits = noise(len(score), self.classes, seed=5, dtype=score.dtype)
        return Scores(score, logits, labels_for(self.classes, len(score)))

    def sides(self, loss: Loss) -> dict[str, Callable[[Tensor, Tensor], dict[str, Tensor]]]:
        """Both players' terms as functions of the scores (real, fake)."""

        def generator(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
            return loss.generator(self.scores(fake), self.scores(real) if loss.needs_real else None)

        return {
            "discriminator": lambda real, fake: loss.discriminator(self.scores(real), self.scores(fake)),
            "generator": generator,
        }

    def test_terms(self) -> None:
        """Named, 0-dim, finite, in the scores' type."""
        for count in self.batch_sizes:
            for side, function in self.sides(self.make()).items():
                terms = function(noise(count), noise(count, seed=1))
                require(isinstance(terms, dict) and bool(terms), f"{side}() returns no dict of named terms")
                for name, value in terms.items():
                    where = f"{side}()'s term {name!r} for a batch of {count}"
                    require(isinstance(value, Tensor) and value.dim() == 0, f"{where} is no 0-dim tensor")
                    require(value.dtype == torch.float32, f"{where} is {value.dtype} where the scores are float32")
                    require(bool(value.isfinite()), f"{where} is not finite")

    def test_gradients_flow(self) -> None:
        """To the scores of both reals and fakes in D's part, of fakes in G's."""
        loss = self.make()
        for side, function in self.sides(loss).items():
            real, fake = (0.3 * noise(4, seed=seed).requires_grad_(True) for seed in (0, 1))
            grads = torch.autograd.grad(summed(function(real, fake)), (real, fake), allow_unused=True)
            for name, grad in zip(("real", "fake"), grads, strict=True):
                if side == "generator" and name == "real":
                    continue
                require(
                    grad is not None and bool((grad != 0).any()),
                    f"no gradient flows from {side}() to the {name} scores: nothing would be learnt from them",
                )

    def test_directions(self) -> None:
        """Near `neutral`, D's part falls as reals rise and fakes fall, and G's falls as fakes rise."""
        real, fake = (self.neutral + 0.1 * noise(6, seed=seed) for seed in (0, 1))
        step = 0.05
        moves = {
            "discriminator": (("the reals' scores rise", step, 0.0), ("the fakes' scores fall", 0.0, -step)),
            "generator": (("the fakes' scores rise", 0.0, step),),
        }
        for side, function in self.sides(self.make()).items():
            for words, up, down in moves[side]:
                before, after = summed(function(real, fake)), summed(function(real + up, fake + down))
                require(bool(after < before), f"{side}() does not fall as {words}: the sign is wrong, or it is flat")

    def test_is_a_mean(self) -> None:
        """A batch given twice has the same terms: only so do batches split over processes and micro-batches."""
        real, fake = noise(3), noise(3, seed=1)
        for side, function in self.sides(self.make()).items():
            once, twice = summed(function(real, fake)), summed(function(real.repeat(2), fake.repeat(2)))
            require(
                difference(twice, once) <= 1e-5,
                f"{side}() of a batch repeated twice is {twice.item():.4g} where once it is {once.item():.4g}: terms "
                "must be means over samples, not sums",
            )

    def test_gradcheck(self) -> None:
        """In float64, gradients of first and second order equal finite differences."""
        for side, function in self.sides(self.make()).items():
            real, fake = (noise(5, seed=seed, dtype=torch.float64).requires_grad_(True) for seed in (3, 4))
            checked(
                lambda r, f, function=function: summed(function(r, f)) + 0 * (r.sum() + f.sum()),
                (real, fake),
                f"{side}()",
                self.second_order,
            )

    def test_extreme_scores(self) -> None:
        """Scores that ran away still give finite terms and gradients."""
        for side, function in self.sides(self.make()).items():
            for sign in (1, -1):
                real = torch.full((2,), sign * self.extreme).requires_grad_(True)
                fake = torch.full((2,), -sign * self.extreme).requires_grad_(True)
                total = summed(function(real, fake))
                grads = torch.autograd.grad(total, (real, fake), allow_unused=True)
                fine = total.isfinite() and all(g is None or bool(g.isfinite().all()) for g in grads)
                require(
                    bool(fine),
                    f"{side}() or its gradient is not finite at scores of {sign * self.extreme:g} and "
                    f"{-sign * self.extreme:g}: use softplus or logsigmoid instead of log and exp",
                )

    def test_leaves_scores_alone(self) -> None:
        """Scores are not changed in place."""
        for side, function in self.sides(self.make()).items():
            real, fake = noise(4), noise(4, seed=1)
            function(real, fake)
            unchanged = torch.equal(real, noise(4)) and torch.equal(fake, noise(4, seed=1))
            require(unchanged, f"{side}() changes the scores in place; others read them too")

    def test_penalties(self) -> None:
        """All of its penalties are penalties."""
        for index, penalty in enumerate(self.make().penalties):
            try:
                require_protocol(penalty, "penalties", f"penalties[{index}] ({type(penalty).__name__})")
            except Exception as error:
                raise AssertionError(str(error)) from error


class SmoothCritic(nn.Module):
    """(N, channels, 3, 3) -> Scores, smooth in images and weights, and nowhere linear.

    Args:
        channels: of the images.
        size: of the initial weights; 0 makes a critic that is flat.
    """

    def __init__(self, channels: int = 1, size: float = 0.5, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.first = nn.Parameter(size * noise(3, channels, 2, 2, dtype=dtype))
        self.second = nn.Parameter(size * noise(12, seed=1, dtype=dtype))

    def forward(self, images: Tensor) -> Scores:
        """tanh(convolution), weighted sum."""
        return self.judged(images, self.first, self.second)

    @staticmethod
    def judged(images: Tensor, first: Tensor, second: Tensor) -> Scores:
        """The same with weights from elsewhere."""
        features = torch.nn.functional.conv2d(images, first).tanh().flatten(1)
        return Scores((features @ second).sinh())


class PenaltySuite(TrainedSuite):
    """A penalty, on a small smooth critic.

    Attributes:
        image_channels: gray and colour.
        second_order: whether the penalty's gradient to D's weights is to be differentiable again.
    """

    kind = "penalties"
    image_channels: Sequence[int] = (1, 3)
    second_order = True

    def chosen(self, part: Any) -> dict[str, Any]:
        """As the one penalty of a logistic loss."""
        return {"loss": ToyLoss([part])}

    def value(self, penalty: Penalty, critic: Any, repeat: int = 1, channels: int = 1, count: int = 3) -> Tensor:
        """The penalty of a fixed batch, which is repeated `repeat` times."""
        dtype = next(iter(critic.parameters())).dtype if isinstance(critic, nn.Module) else torch.float64
        real, fake = (noise(count, channels, 3, 3, seed=s, dtype=dtype).repeat(repeat, 1, 1, 1) for s in (2, 3))
        mix = torch.linspace(0.1, 0.9, count, dtype=dtype).repeat(repeat)
        torch.manual_seed(0)
        return penalty(critic, real, fake, critic(real), critic(fake), mix)

    def test_value(self) -> None:
        """One finite number, for gray and colour images and any batch size."""
        for channels in self.image_channels:
            for count in (1, 2, 4):
                value = self.value(self.make(), SmoothCritic(channels), channels=channels, count=count)
                where = f"for a batch of {count} with {channels} channels"
                require(isinstance(value, Tensor) and value.dim() == 0, f"the penalty {where} is no 0-dim tensor")
                require(bool(value.isfinite()), f"the penalty {where} is not finite")

    def test_gradients_flow(self) -> None:
        """To the critic's weights."""
        critic = SmoothCritic()
        value = self.value(self.make(), critic)
        require(value.requires_grad, "the penalty does not depend on the critic's weights: nothing is penalised")
        value.backward()
        reached = [param.grad is not None and bool(param.grad.abs().max() > 0) for param in critic.parameters()]
        require(any(reached), "no gradient flows from the penalty to the critic's weights: was something detached?")

    def test_gradcheck(self) -> None:
        """In float64, its gradients to the critic's weights, of first and second order, equal finite differences."""
        penalty, critic = self.make(), SmoothCritic()
        given = tuple(param.detach().clone().requires_grad_(True) for param in critic.parameters())

        def function(first: Tensor, second: Tensor) -> Tensor:
            return self.value(penalty, lambda images: SmoothCritic.judged(images, first, second))

        checked(function, given, "the penalty as a function of the critic's weights", self.second_order)

    def test_is_a_mean(self) -> None:
        """A batch given twice has the same penalty."""
        penalty, critic = self.make(), SmoothCritic()
        once, twice = self.value(penalty, critic), self.value(penalty, critic, repeat=2)
        require(
            difference(twice, once) <= 1e-6,
            f"the penalty of a batch repeated twice is {twice.item():.4g} where once it is {once.item():.4g}: it must "
            "be a mean over samples",
        )

    def test_leaves_weight_to_the_update(self) -> None:
        """The term is unweighted: the update multiplies it by `weight` and `every`."""
        penalty, critic = self.make(), SmoothCritic()
        require(penalty.weight >= 0, f"weight is {penalty.weight}, below 0")
        require(
            penalty.every >= 1 and isinstance(penalty.every, int), f"every is {penalty.every!r}, no number from 1 up"
        )
        plain = self.value(penalty, critic)
        penalty.weight, penalty.every = 2 * penalty.weight + 1, 2 * penalty.every
        require(
            difference(self.value(penalty, critic), plain) == 0,
            "the penalty's value depends on its weight or every: the update multiplies by them, so they count twice",
        )

    def test_flat_critic(self) -> None:
        """Where D's gradient is 0, value and gradient are finite: the square root has no derivative there."""
        critic = SmoothCritic(size=0.0)
        value = self.value(self.make(), critic)
        require(bool(value.isfinite()), "the penalty of a flat critic is not finite")
        if value.requires_grad:
            value.backward()
        for param in critic.parameters():
            require(
                param.grad is None or bool(param.grad.isfinite().all()),
                "the gradient of the penalty is not finite where the critic is flat: a norm has no derivative at 0 "
                "(torch.linalg.vector_norm takes 0 there, sqrt does not)",
            )
