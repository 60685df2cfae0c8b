"""G first, then D on one batch of reals and some of the same fakes."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pggan_kit import ChosenOptimizers, DiscriminatorCall, GeneratorCall, Loss, Part, Penalty, Stage, StepContext
from pggan_kit.components import Optimizer
from pggan_plugins.updates.shared import add_penalties, report, scores_of_reals

SHARED = "both"


class JointBatch:
    """One update of G, then one of D that sees reals and the first half of G's fakes as one batch.

    G makes twice as many fakes as there are reals and is judged by D in inference mode. D then learns in training mode
    from the reals and the fakes of before, at once: layers that look at a whole batch (batch normalisation, minibatch
    statistics) see both together. G runs once in an iteration. After Morvan Zhou's tutorial (mnistGANs, `pggan.py`).

    Args:
        optimizer: builds the one optimizer of both networks; it takes two steps in an iteration.

    Raises:
        ValueError: an optimizer was also given for one of the networks.
    """

    batches_in_a_call = 2

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def optimizers(
        self, experiment: ChosenOptimizers, stage: Stage, generator: nn.Module, discriminator: nn.Module
    ) -> dict[str, torch.optim.Optimizer]:
        """`both`: the optimizer of all parameters."""
        for name in ("generator_optimizer", "discriminator_optimizer"):
            if getattr(experiment, name) is not None:
                raise ValueError(
                    f"updates.JointBatch moves both networks with its own optimizer: bind train.{name} = None"
                )
        return {SHARED: self.optimizer.build([*generator.parameters(), *discriminator.parameters()], stage)}

    def step(self, ctx: StepContext) -> dict[str, Tensor]:
        """Returns the mean scores, the mean sign of those of reals, and both networks' terms."""
        real = ctx.reals()
        part: dict[str, Tensor | None] = {
            "latents": ctx.latents("generator", 2 * ctx.stage.batch_size),
            "labels": twice(real.labels),
            "real": twice(real.images) if ctx.loss.needs_real else None,
        }
        g_terms = functools.partial(generator_terms, loss=ctx.loss)
        g_losses, made = ctx.minimise(SHARED, "generator", g_terms, part, inference=True)
        part = {
            "real": real.images,
            "fake": made["fake"][: len(real.images)],
            "labels": real.labels,
            "mix": ctx.uniform("mix"),
        }
        d_terms = functools.partial(discriminator_terms, loss=ctx.loss, due=ctx.due(ctx.loss.penalties))
        d_losses, scores = ctx.minimise(SHARED, "discriminator", d_terms, part)
        return report([d_losses], g_losses, [scores], ctx.loss.penalties)


def generator_terms(
    G: GeneratorCall, D: DiscriminatorCall, part: Part, loss: Loss
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The loss's terms; keeps `fake`, the images (N, C, h, w) made of N latents."""
    latents, labels, real = part["latents"], part["labels"], part["real"]
    assert latents is not None
    fake = G(latents, labels)
    return loss.generator(D(fake, labels), scores_of_reals(D, loss, real, labels)), {"fake": fake}


def discriminator_terms(
    G: GeneratorCall, D: DiscriminatorCall, part: Part, loss: Loss, due: Sequence[Penalty]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The loss's terms and the weighted penalties that are due; keeps the scores `real` and `fake`, (N,) each.

    Reals and fakes go through D in one call; penalties run it again, on what images they choose.
    """
    real, fake, labels, mix = part["real"], part["fake"], part["labels"], part["mix"]
    assert real is not None and fake is not None and mix is not None
    both = D(torch.cat([real, fake]), twice(labels))
    real_scores, fake_scores = both.rows(slice(len(real))), both.rows(slice(len(real), None))
    terms = loss.discriminator(real_scores, fake_scores)
    seen = (real, fake), (real_scores, fake_scores)
    add_penalties(terms, loss.penalties, due, lambda images: D(images, labels), *seen, mix)
    return terms, {"real": real_scores.score, "fake": fake_scores.score}


def twice(rows: Tensor | None) -> Tensor | None:
    """(N, ...) -> (2N, ...), the same rows once more; None stays None."""
    return None if rows is None else torch.cat([rows, rows])
