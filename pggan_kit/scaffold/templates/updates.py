"""An update of your own: here D and G take turns, and G's terms may be taken several times."""

import torch
from torch import Tensor, nn

from pggan_kit import (
    ChosenOptimizers,
    Component,
    DiscriminatorCall,
    GeneratorCall,
    Part,
    Stage,
    StepContext,
    at_height,
    check_at_least,
    hookimpl,
)

Terms = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Losses to be summed and minimised; and what is wanted back, with N rows each."""


class Mine:
    """One update of D, then `generator_updates` of G, with fresh latents for each.

    Args:
        generator_updates: at least 1.

    Raises:
        ValueError: a number below 1; no optimizer given for one of the networks.
    """

    def __init__(self, generator_updates: int = 1) -> None:
        check_at_least("generator_updates", generator_updates, 1)
        self.generator_updates = generator_updates

    def optimizers(
        self, experiment: ChosenOptimizers, stage: Stage, generator: nn.Module, discriminator: nn.Module
    ) -> dict[str, torch.optim.Optimizer]:
        """Asked for after each growth; `step` names them in `minimise`."""
        if experiment.generator_optimizer is None or experiment.discriminator_optimizer is None:
            raise ValueError("updates.Mine needs train.generator_optimizer and train.discriminator_optimizer")
        return {
            "generator": experiment.generator_optimizer.build(generator.parameters(), stage),
            "discriminator": experiment.discriminator_optimizer.build(discriminator.parameters(), stage),
        }

    def step(self, ctx: StepContext) -> dict[str, Tensor]:
        """Draws through `ctx`, changes weights through `ctx.minimise` alone; returns what is logged, by tag."""
        real, loss, due = ctx.reals(), ctx.loss, ctx.due(ctx.loss.penalties)

        def judge(G: GeneratorCall, D: DiscriminatorCall, part: Part) -> Terms:
            images, labels, latents, mix = (part[name] for name in ("real", "labels", "latents", "mix"))
            assert images is not None and latents is not None and mix is not None
            with torch.no_grad():
                fake = G(latents, labels)
            real_scores, fake_scores = D(images, labels), D(fake, labels)
            terms = loss.discriminator(real_scores, fake_scores)
            for number, penalty in enumerate(loss.penalties):
                if penalty in due:
                    value = penalty(lambda x: D(x, labels), images, fake, real_scores, fake_scores, mix)
                    weight: float = at_height(penalty.weight, images.shape[-2])
                    terms[f"penalty{number}"] = weight * penalty.every * value
            return terms, {"real": real_scores.score, "fake": fake_scores.score}

        def make(G: GeneratorCall, D: DiscriminatorCall, part: Part) -> Terms:
            images, labels, latents = (part[name] for name in ("real", "labels", "latents"))
            assert images is not None and latents is not None
            real_scores = D(images, labels) if loss.needs_real else None
            return loss.generator(D(G(latents, labels), labels), real_scores), {}

        batch: dict[str, Tensor | None] = {"real": real.images, "labels": real.labels, "mix": ctx.uniform("mix")}
        part = {**batch, "latents": ctx.latents("discriminator")}
        d_terms, scores = ctx.minimise("discriminator", "discriminator", judge, part)
        for number in range(self.generator_updates):
            part = {**batch, "latents": ctx.latents(f"generator {number}")}
            g_terms, _ = ctx.minimise("generator", "generator", make, part)
        for number, penalty in enumerate(loss.penalties):
            name = f"penalty{number}"
            if name in d_terms:  # in the log as large as it is on average; left out where it was not due
                d_terms[name] = d_terms[name] / penalty.every
        return {
            **{f"Loss/discriminator/{name}": value for name, value in d_terms.items()},
            **{f"Loss/generator/{name}": value for name, value in g_terms.items()},
            "Scores/real": scores["real"].mean(),
            "Scores/fake": scores["fake"].mean(),
        }


@hookimpl
def components() -> list[Component]:
    """What configs may name: `@updates.Mine()`."""
    return [Component("updates", "Mine", Mine)]
