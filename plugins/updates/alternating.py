"""An update of D, then of G, each with its own optimizer."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pggan_kit import (
    ChosenOptimizers,
    ConfigError,
    DiscriminatorCall,
    DuePenalty,
    GeneratorCall,
    Loss,
    Position,
    Scores,
    Stage,
    StepContext,
    TensorBatch,
    Varying,
    check_at_least,
    scores_of_each,
    value_at,
)
from pggan_plugins.updates.terms import add_penalties, report_step, score_reals


class Alternating:
    """n_critic updates of D, then one of G, with fresh latents for each (Karras et al. 2018, appendix A.1).

    Args:
        n_critic: The number of updates of D for each of G, at least 1; may be per stage or a curve, whose values
            are rounded. Each draws its own reals, a step of the schedule's budgets.

    Raises:
        ValueError: A value out of range, or a network without an optimizer.
    """

    def __init__(self, n_critic: Varying[int] = 1) -> None:
        check_at_least("n_critic", n_critic, 1, whole=True)
        self.n_critic = n_critic

    def optimizers(
        self, experiment: ChosenOptimizers, stage: Stage, generator: nn.Module, discriminator: nn.Module
    ) -> dict[str, torch.optim.Optimizer]:
        """Build `generator` and `discriminator` from the experiment's two optimizers."""
        chosen = {
            "generator": (experiment.generator_optimizer, generator),
            "discriminator": (experiment.discriminator_optimizer, discriminator),
        }
        built = {}
        for name, (optimizer, net) in chosen.items():
            if optimizer is None:
                raise ValueError(f"updates.Alternating needs train.{name}_optimizer: bind it")
            built[name] = optimizer.build(net.parameters(), stage)
        return built

    def step(self, ctx: StepContext) -> dict[str, Tensor]:
        """Return the mean scores, the mean sign of the reals' scores, and both networks' terms; see `report_step`."""
        # Update D, each time on reals and latents of its own.
        d_losses: list[dict[str, Tensor]] = []
        d_scores: list[dict[str, Tensor]] = []
        for _ in range(self.count_drawn_batches(ctx.position)):
            reals = ctx.reals()
            batch: dict[str, Tensor | None] = {
                "real": reals.images,
                "labels": reals.labels,
                "latents": ctx.latents("discriminator"),
                "mix": ctx.uniform("mix"),
            }
            d_terms = functools.partial(discriminator_terms, loss=ctx.loss, due=ctx.due(ctx.loss.penalties))
            losses, scores = ctx.minimise("discriminator", "discriminator", d_terms, batch)
            d_losses.append(losses)
            d_scores.append(scores)

        # Update G. Its fakes get the labels of the last reals.
        batch = {
            "real": reals.images if ctx.loss.needs_real else None,
            "labels": reals.labels,
            "latents": ctx.latents("generator"),
        }
        g_terms = functools.partial(generator_terms, loss=ctx.loss)
        g_losses, _ = ctx.minimise("generator", "generator", g_terms, batch)
        return report_step(d_losses, g_losses, d_scores, ctx.loss.penalties)

    def check_at(self, position: Position) -> None:
        """Check n_critic at a place on the clock; see `count_drawn_batches`."""
        self.count_drawn_batches(position)

    def count_drawn_batches(self, position: Position) -> int:
        """Return n_critic at a place on the clock: each update of D draws a batch of reals.

        Raises:
            ConfigError: A curve's value is no number that rounds to at least 1.
        """
        value = value_at(self.n_critic, position, "n_critic")
        if not 0.5 <= value < math.inf:
            raise ConfigError(f"updates.Alternating.n_critic must round to at least 1, and is {value} at {position}")
        return max(1, round(value))


def discriminator_terms(
    G: GeneratorCall, D: DiscriminatorCall, batch: TensorBatch, loss: Loss, due: Sequence[DuePenalty]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Compute the loss's terms and the weighted penalties that are due.

    Returns:
        The terms, and the scores `real` and `fake`, (N,) each.
    """
    real = batch["real"]
    labels = batch["labels"]
    latents = batch["latents"]
    mix = batch["mix"]
    assert real is not None and latents is not None and mix is not None

    # D alone learns here: nothing flows back into G.
    with torch.no_grad():
        fake = G(latents, labels)
    real_scores, fake_scores = scores_of_each(D, (real, fake), labels)
    terms = loss.discriminator(real_scores, fake_scores)

    # Penalties choose their images, which have the batch's labels.
    def critic(images: Tensor) -> Scores:
        return D(images, labels)

    add_penalties(terms, loss.penalties, due, batch, critic, (real, fake), (real_scores, fake_scores), mix)
    return terms, {"real": real_scores.score, "fake": fake_scores.score}


def generator_terms(
    G: GeneratorCall, D: DiscriminatorCall, batch: TensorBatch, loss: Loss
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Compute the loss's terms.

    Returns:
        The terms, and an empty dict: nothing is kept.
    """
    labels = batch["labels"]
    latents = batch["latents"]
    assert latents is not None
    fake_scores = D(G(latents, labels), labels)
    real_scores = score_reals(D, loss, batch["real"], labels)
    return loss.generator(fake_scores, real_scores), {}
