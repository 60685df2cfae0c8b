"""The suites of losses and of penalties."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pggan_kit.components import Loss, Scores
from pggan_kit.plugin_host.contracts import require_protocol
from pggan_kit.testing.base import TrainedSuite
from pggan_kit.testing.support import checked, difference, labels_for, noise, require
from pggan_kit.testing.toys import summed


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
