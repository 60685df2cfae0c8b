"""Test that losses keep their contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pggan_kit.components import Loss, Scores
from pggan_kit.testing.suite import StepSuite
from pggan_kit.testing.support import are_equal, check_gradients, draw_noise, make_labels, measure_difference, require
from pggan_kit.testing.toys import sum_terms

TermsOfScores = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""Function of the scores of reals and of fakes that returns one network's terms."""

STEP = 0.05
"""Distance by which scores move to see whether terms fall."""

MEAN_TOLERANCE = 1e-5
"""Tolerance between the terms of a batch and the mean of those of its slices."""


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

    def make_sides(self, loss: Loss, rows: slice = slice(None)) -> dict[str, TermsOfScores]:
        """Return both networks' terms as functions of the scores (real, fake) of a batch, some rows of which count."""

        def discriminator(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
            return loss.discriminator(self.scores(real).rows(rows), self.scores(fake).rows(rows))

        def generator(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
            its_real = self.scores(real).rows(rows) if loss.needs_real else None
            return loss.generator(self.scores(fake).rows(rows), its_real)

        return {"discriminator": discriminator, "generator": generator}

    def _call_sides(self, loss: Loss, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """Return the sum of each network's terms for these scores."""
        return {
            "discriminator": sum_terms(loss.discriminator(real, fake)),
            "generator": sum_terms(loss.generator(fake, real if loss.needs_real else None)),
        }

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

    def test_classes(self) -> None:
        """Require D's terms not to rise as the logits of the reals' classes do, nor G's as those of the fakes'."""
        if not self.classes:
            return
        real, fake = (self.scores(draw_noise(6, seed=seed)) for seed in (0, 1))
        loss = self.make()
        before = self._call_sides(loss, real, fake)
        moved = {
            "discriminator": ("reals", self._call_sides(loss, _raise_own_logits(real), fake)),
            "generator": ("fakes", self._call_sides(loss, real, _raise_own_logits(fake))),
        }
        for side, (whose, after) in moved.items():
            require(
                bool(after[side] <= before[side]),
                f"{side}() rises as the class logits of the {whose}' own classes do: the sign of a term is wrong",
            )

    def test_is_a_mean(self) -> None:
        """Require the mean of the terms of a batch's slices to be those of the batch.

        Ranks and micro-batches take every second sample of reals and fakes, so sample i of both stay together.
        """
        real = draw_noise(6)
        fake = draw_noise(6, seed=1)
        loss = self.make()
        slices = [self.make_sides(loss, slice(start, None, 2)) for start in range(2)]
        for side, compute in self.make_sides(loss).items():
            whole = sum_terms(compute(real, fake))
            mean = torch.stack([sum_terms(sides[side](real, fake)) for sides in slices]).mean()
            require(
                measure_difference(mean, whole) <= MEAN_TOLERANCE,
                f"{side}() of a batch is {whole.item():.4g}, and the mean over its slices is {mean.item():.4g}: terms "
                "must be means over samples, or over pairs of real i and fake i",
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
        """Require scores, class logits and labels not to be changed in place."""
        loss = self.make()
        for side in ("discriminator", "generator"):
            real, fake = (self.scores(draw_noise(4, seed=seed)) for seed in (0, 1))
            if side == "discriminator":
                loss.discriminator(real, fake)
            else:
                loss.generator(fake, real if loss.needs_real else None)
            for seed, scores in enumerate((real, fake)):
                unchanged = are_equal(scores, self.scores(draw_noise(4, seed=seed)))
                require(unchanged, f"{side}() changes the scores in place; others read them too")


def _raise_own_logits(scores: Scores) -> Scores:
    """Return scores with higher logits of each sample's own class."""
    assert scores.class_logits is not None and scores.labels is not None
    own = torch.nn.functional.one_hot(scores.labels, scores.class_logits.shape[1])
    return scores._replace(class_logits=scores.class_logits + STEP * own)
