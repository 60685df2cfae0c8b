"""An update of G, then of D on one batch of reals and some of the same fakes."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pggan_kit import (
    ChosenOptimizers,
    DiscriminatorCall,
    DuePenalty,
    GeneratorCall,
    Loss,
    Scores,
    Stage,
    StepContext,
    TensorBatch,
)
from pggan_kit.components import Optimizer
from pggan_plugins.updates.terms import add_penalties, report_step, score_reals

SHARED = "both"
"""Name of the one optimizer."""


class JointBatch:
    """One update of G, then one of D that sees reals and the first half of G's fakes as one batch.

    G makes twice as many fakes as there are reals and is judged by D in inference mode. D then learns in training mode
    from the reals and from half of those fakes at once: layers that look at a whole batch (batch normalisation,
    minibatch statistics) see both together. G runs once in an iteration. After Morvan Zhou's tutorial (mnistGANs,
    `pggan.py`).

    Args:
        optimizer: The one optimizer of both networks; it takes two steps in an iteration.

    Raises:
        ValueError: An optimizer that is also bound for one of the networks.
    """

    batches_in_a_call = 2

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def optimizers(
        self, experiment: ChosenOptimizers, stage: Stage, generator: nn.Module, discriminator: nn.Module
    ) -> dict[str, torch.optim.Optimizer]:
        """Build `both`: the optimizer of all parameters."""
        for name in ("generator_optimizer", "discriminator_optimizer"):
            if getattr(experiment, name) is not None:
                raise ValueError(
                    f"updates.JointBatch moves both networks with its own optimizer: bind train.{name} = None"
                )
        return {SHARED: self.optimizer.build([*generator.parameters(), *discriminator.parameters()], stage)}

    def step(self, ctx: StepContext) -> dict[str, Tensor]:
        """Return the mean scores, the mean sign of the reals' scores, and both networks' terms; see `report_step`."""
        reals = ctx.reals()

        # Update G, on twice as many fakes as reals.
        batch: dict[str, Tensor | None] = {
            "latents": ctx.latents("generator", 2 * ctx.stage.batch_size),
            "labels": repeat_rows(reals.labels),
            "real": repeat_rows(reals.images) if ctx.loss.needs_real else None,
        }
        g_terms = functools.partial(generator_terms, loss=ctx.loss)
        g_losses, kept = ctx.minimise(SHARED, "generator", g_terms, batch, inference=True)

        # Update D, on the reals and the first half of those fakes.
        batch = {
            "real": reals.images,
            "fake": kept["fake"][: len(reals.images)],
            "labels": reals.labels,
            "mix": ctx.uniform("mix"),
        }
        d_terms = functools.partial(discriminator_terms, loss=ctx.loss, due=ctx.due(ctx.loss.penalties))
        d_losses, d_scores = ctx.minimise(SHARED, "discriminator", d_terms, batch)
        return report_step([d_losses], g_losses, [d_scores], ctx.loss.penalties)


def generator_terms(
    G: GeneratorCall, D: DiscriminatorCall, batch: TensorBatch, loss: Loss
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Compute the loss's terms.

    Returns:
        The terms, and `fake`, the images (N, C, h, w) of N latents.
    """
    latents = batch["latents"]
    labels = batch["labels"]
    assert latents is not None
    fake = G(latents, labels)
    fake_scores = D(fake, labels)
    real_scores = score_reals(D, loss, batch["real"], labels)
    return loss.generator(fake_scores, real_scores), {"fake": fake}


def discriminator_terms(
    G: GeneratorCall, D: DiscriminatorCall, batch: TensorBatch, loss: Loss, due: Sequence[DuePenalty]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Compute the loss's terms and the weighted penalties that are due.

    Reals and fakes go through D in one call; penalties run it again, on images of their choice.

    Returns:
        The terms, and the scores `real` and `fake`, (N,) each.
    """
    real = batch["real"]
    fake = batch["fake"]
    labels = batch["labels"]
    mix = batch["mix"]
    assert real is not None and fake is not None and mix is not None

    # One call, so that layers which look at a whole batch see reals and fakes together.
    scores = D(torch.cat([real, fake]), repeat_rows(labels))
    real_scores = scores.rows(slice(len(real)))
    fake_scores = scores.rows(slice(len(real), None))
    terms = loss.discriminator(real_scores, fake_scores)

    # Penalties choose their images, which have the reals' labels.
    def critic(images: Tensor) -> Scores:
        return D(images, labels)

    add_penalties(terms, loss.penalties, due, batch, critic, (real, fake), (real_scores, fake_scores), mix)
    return terms, {"real": real_scores.score, "fake": fake_scores.score}


def repeat_rows(rows: Tensor | None) -> Tensor | None:
    """Return (2N, ...) with the rows of (N, ...) twice, one batch behind the other; None for None."""
    if rows is None:
        return None
    return torch.cat([rows, rows])
