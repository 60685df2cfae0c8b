"""D, then G, each with its own optimizer."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pggan_kit import (
    ChosenOptimizers,
    DiscriminatorCall,
    GeneratorCall,
    Loss,
    Part,
    Penalty,
    PerStage,
    Stage,
    StepContext,
    at_height,
    check_at_least,
    scores_of_each,
)
from pggan_plugins.updates.shared import add_penalties, report, scores_of_reals


class Alternating:
    """n_critic updates of D, then one of G, with fresh latents for each (Karras et al. 2018, appendix A.1).

    Args:
        n_critic: updates of D for each of G, at least 1; may be per stage. Each draws its own reals.

    Raises:
        ValueError: a value out of range; no optimizer given for one of the networks.
    """

    def __init__(self, n_critic: PerStage[int] = 1) -> None:
        check_at_least("n_critic", n_critic, 1)
        self.n_critic = n_critic

    def optimizers(
        self, experiment: ChosenOptimizers, stage: Stage, generator: nn.Module, discriminator: nn.Module
    ) -> dict[str, torch.optim.Optimizer]:
        """`generator` and `discriminator`, from the experiment's two."""
        chosen = {
            "generator": (experiment.generator_optimizer, generator),
            "discriminator": (experiment.discriminator_optimizer, discriminator),
        }
        built = {}
        for name, (optimizer, net) in chosen.items():
            if optimizer is None:
                raise ValueError(f"updates.Alternating needs train.{name}_optimizer")
            built[name] = optimizer.build(net.parameters(), stage)
        return built

    def step(self, ctx: StepContext) -> dict[str, Tensor]:
        """Returns the mean scores, the mean sign of those of reals, and both networks' terms; see `report`."""
        d_losses: list[dict[str, Tensor]] = []
        scores: list[dict[str, Tensor]] = []
        for _ in range(at_height(self.n_critic, ctx.stage.height)):
            real = ctx.reals()
            part: dict[str, Tensor | None] = {
                "real": real.images,
                "labels": real.labels,
                "latents": ctx.latents("discriminator"),
                "mix": ctx.uniform("mix"),
            }
            terms = functools.partial(discriminator_terms, loss=ctx.loss, due=ctx.due(ctx.loss.penalties))
            its_losses, its_scores = ctx.minimise("discriminator", "discriminator", terms, part)
            d_losses.append(its_losses)
            scores.append(its_scores)
        part = {"real": real.images if ctx.loss.needs_real else None, "labels": real.labels}
        part["latents"] = ctx.latents("generator")
        g_losses, _ = ctx.minimise("generator", "generator", functools.partial(generator_terms, loss=ctx.loss), part)
        return report(d_losses, g_losses, scores, ctx.loss.penalties)


def discriminator_terms(
    G: GeneratorCall, D: DiscriminatorCall, part: Part, loss: Loss, due: Sequence[Penalty]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The loss's terms and the weighted penalties that are due; keeps the scores `real` and `fake`, (N,) each."""
    real, labels, latents, mix = part["real"], part["labels"], part["latents"], part["mix"]
    assert real is not None and latents is not None and mix is not None
    with torch.no_grad():
        fake = G(latents, labels)
    real_scores, fake_scores = scores_of_each(D, (real, fake), labels)
    terms = loss.discriminator(real_scores, fake_scores)
    seen = (real, fake), (real_scores, fake_scores)
    add_penalties(terms, loss.penalties, due, lambda images: D(images, labels), *seen, mix)
    return terms, {"real": real_scores.score, "fake": fake_scores.score}


def generator_terms(
    G: GeneratorCall, D: DiscriminatorCall, part: Part, loss: Loss
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The loss's terms; keeps nothing."""
    real, labels, latents = part["real"], part["labels"], part["latents"]
    assert latents is not None
    fake_scores = D(G(latents, labels), labels)
    return loss.generator(fake_scores, scores_of_reals(D, loss, real, labels)), {}
