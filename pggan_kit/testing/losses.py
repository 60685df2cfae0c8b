"""Test that losses keep their contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pggan_kit.components import Loss, Scores
from pggan_kit.errors import PluginError
from pggan_kit.plugin_host.contracts import require_protocol
from pggan_kit.testing.suite import StepSuite
from pggan_kit.testing.support import check_gradients, draw_noise, make_labels, measure_difference, require
from pggan_kit.testing.toys import sum_terms

TermsOfScores = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""Function of the scores of reals and of fakes that returns one network's terms."""

STEP = 0.05
"""Distance by which scores move to see whether terms fall."""

MEAN_TOLERANCE = 1e-5
"""Tolerance between the terms of a batch and of the batch given twice."""


class LossSuite(StepSuite):
    """Adversarial losses.

    Attributes:
        classes: Number of classes, above 0 where the loss reads class logits: scores then carry them, and labels.
        batch_sizes: Batch sizes to try.
        neutral: A score between those that reals and fakes are drawn to.
        extreme: Size of scores that must still give finite terms and gradients.
        second_order: Whether the gradient is differentiable again (it is not where the loss says so).
    """

    kind = "losses"
    classes = 0
    batch_sizes: Sequence[int] = (1, 2, 5)
    neutral = 0.5
    extreme = 1e4
    second_order = True

    def choose_arguments(self, component: Any) -> dict[str, Any]:
        """Return the component as `train.loss`."""
        return {"loss": component}

    def scores(self, score: Tensor) -> Scores:
        """Return what a discriminator would return: this score, and where there are classes, logits and labels."""
        if not self.classes:
            return Scores(score)
        logits = draw_noise(len(score), self.classes, seed=5, dtype=score.dtype)
        return Scores(score, logits, make_labels(self.classes, len(score)))

    def make_sides(self, loss: Loss, times: int = 1) -> dict[str, TermsOfScores]:
        """Return both networks' terms as functions of the scores (real, fake) of a batch, which is given so often."""

        def repeat(score: Tensor) -> Scores:
            # A loss that writes into its scores is to be noticed: copies would hide it.
            once = self.scores(score)
            if times == 1:
                return once
            logits = None if once.class_logits is None else once.class_logits.repeat(times, 1)
            labels = None if once.labels is None else once.labels.repeat(times)
            return Scores(once.score.repeat(times), logits, labels)

        def discriminator(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
            return loss.discriminator(repeat(real), repeat(fake))

        def generator(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
            return loss.generator(repeat(fake), repeat(real) if loss.needs_real else None)

        return {"discriminator": discriminator, "generator": generator}

    def test_terms(self) -> None:
        """Require named terms that are 0-dim, finite, and of the scores' type."""
        for count in self.batch_sizes:
            for side, compute in self.make_sides(self.make()).items():
                terms = compute(draw_noise(count), draw_noise(count, seed=1))
                require(isinstance(terms, dict) and bool(terms), f"{side}() returns no dict of named terms")
                for name, value in terms.items():
                    where = f"{side}()'s term {name!r} for a batch of {count}"
                    require(isinstance(value, Tensor) and value.dim() == 0, f"{where} is no 0-dim tensor")
                    require(value.dtype == torch.float32, f"{where} is {value.dtype} where the scores are float32")
                    require(bool(value.isfinite()), f"{where} is not finite")

    def test_gradients_flow(self) -> None:
        """Require gradients to the scores of both reals and fakes from D's terms, of fakes from G's."""
        loss = self.make()
        for side, compute in self.make_sides(loss).items():
            real, fake = (0.3 * draw_noise(4, seed=seed).requires_grad_(True) for seed in (0, 1))
            grads = torch.autograd.grad(sum_terms(compute(real, fake)), (real, fake), allow_unused=True)
            for name, grad in zip(("real", "fake"), grads, strict=True):
                if side == "generator" and name == "real":
                    continue
                require(
                    grad is not None and bool((grad != 0).any()),
                    f"no gradient flows from {side}() to the {name} scores: nothing would be learnt from them",
                )

    def test_directions(self) -> None:
        """Require, near `neutral`, D's terms to fall as reals rise and fakes fall, and G's to fall as fakes rise."""
        real, fake = (self.neutral + 0.1 * draw_noise(6, seed=seed) for seed in (0, 1))
        moves = {
            "discriminator": (("the reals' scores rise", STEP, 0.0), ("the fakes' scores fall", 0.0, -STEP)),
            "generator": (("the fakes' scores rise", 0.0, STEP),),
        }
        for side, compute in self.make_sides(self.make()).items():
            before = sum_terms(compute(real, fake))
            for words, real_step, fake_step in moves[side]:
                after = sum_terms(compute(real + real_step, fake + fake_step))
                require(bool(after < before), f"{side}() does not fall as {words}: the sign is wrong, or it is flat")

    def test_is_a_mean(self) -> None:
        """Require the same terms of a batch given twice: only then can ranks and micro-batches split batches."""
        real = draw_noise(3)
        fake = draw_noise(3, seed=1)
        loss = self.make()
        given_twice = self.make_sides(loss, times=2)
        for side, compute in self.make_sides(loss).items():
            once = sum_terms(compute(real, fake))
            twice = sum_terms(given_twice[side](real, fake))
            require(
                measure_difference(twice, once) <= MEAN_TOLERANCE,
                f"{side}() of a batch repeated twice is {twice.item():.4g} where once it is {once.item():.4g}: terms "
                "must be means over samples, not sums",
            )

    def test_gradcheck(self) -> None:
        """Require gradients of first and second order to equal finite differences in float64."""
        for side, compute in self.make_sides(self.make()).items():

            def total(real: Tensor, fake: Tensor, compute: TermsOfScores = compute) -> Tensor:
                # G's terms may not depend on the reals' scores, which gradcheck requires of its inputs.
                return sum_terms(compute(real, fake)) + 0 * (real.sum() + fake.sum())

            scores = [draw_noise(5, seed=seed, dtype=torch.float64).requires_grad_(True) for seed in (3, 4)]
            check_gradients(total, scores, f"{side}()", self.second_order)

    def test_extreme_scores(self) -> None:
        """Require finite terms and gradients of extreme scores."""
        for side, compute in self.make_sides(self.make()).items():
            for score in (self.extreme, -self.extreme):
                # Both sides are extreme, in opposite directions.
                real = torch.full((2,), score).requires_grad_(True)
                fake = torch.full((2,), -score).requires_grad_(True)
                total = sum_terms(compute(real, fake))
                grads = torch.autograd.grad(total, (real, fake), allow_unused=True)

                finite = bool(total.isfinite()) and all(grad is None or bool(grad.isfinite().all()) for grad in grads)
                require(
                    finite,
                    f"{side}() or its gradient is not finite at scores of {score:g} and {-score:g}: use softplus or "
                    "logsigmoid instead of log and exp",
                )

    def test_leaves_scores_alone(self) -> None:
        """Require scores not to be changed in place."""
        for side, compute in self.make_sides(self.make()).items():
            real = draw_noise(4)
            fake = draw_noise(4, seed=1)
            compute(real, fake)
            unchanged = torch.equal(real, draw_noise(4)) and torch.equal(fake, draw_noise(4, seed=1))
            require(unchanged, f"{side}() changes the scores in place; others read them too")

    def test_penalties(self) -> None:
        """Require all of the loss's penalties to be penalties."""
        for index, penalty in enumerate(self.make().penalties):
            try:
                require_protocol(penalty, "penalties", f"penalties[{index}] ({type(penalty).__name__})")
            except PluginError as error:
                raise AssertionError(str(error)) from error
