"""An update of your own: here D takes one step, then G takes one or several."""

import torch
from torch import Tensor, nn

from pggan_kit import (
    ChosenOptimizers,
    Component,
    DiscriminatorCall,
    GeneratorCall,
    Stage,
    StepContext,
    TensorBatch,
    check_at_least,
    hookimpl,
)

Terms = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Losses whose sum is minimised, and tensors with N rows that the caller gets back."""


class Mine:
    """One update of D, then `generator_updates` of G, with new latents for each.

    Args:
        generator_updates: Number of G's updates for each of D's, at least 1.

    Raises:
        ValueError: The number is below 1, or one of the networks has no optimizer.
    """

    def __init__(self, generator_updates: int = 1) -> None:
        check_at_least("generator_updates", generator_updates, 1)
        self.generator_updates = generator_updates

    def optimizers(
        self, experiment: ChosenOptimizers, stage: Stage, generator: nn.Module, discriminator: nn.Module
    ) -> dict[str, torch.optim.Optimizer]:
        """Return the optimizers of a stage, by the names that `step` gives to `minimise`."""
        if experiment.generator_optimizer is None or experiment.discriminator_optimizer is None:
            raise ValueError("updates.Mine needs train.generator_optimizer and train.discriminator_optimizer")
        return {
            "generator": experiment.generator_optimizer.build(generator.parameters(), stage),
            "discriminator": experiment.discriminator_optimizer.build(discriminator.parameters(), stage),
        }

    def step(self, ctx: StepContext) -> dict[str, Tensor]:
        """Take one iteration and return what is logged, by tag.

        All random numbers come from `ctx`, and only `ctx.minimise` changes weights.
        """
        real = ctx.reals()
        loss = ctx.loss
        due = ctx.due(loss.penalties)

        # The core may call both functions with slices of the batch, to save memory.
        def compute_discriminator_terms(G: GeneratorCall, D: DiscriminatorCall, batch: TensorBatch) -> Terms:
            images = batch["real"]
            labels = batch["labels"]
            latents = batch["latents"]
            mix = batch["mix"]
            assert images is not None and latents is not None and mix is not None

            # G does not learn here, so its part of the graph is not kept.
            with torch.no_grad():
                fake = G(latents, labels)
            real_scores = D(images, labels)
            fake_scores = D(fake, labels)
            terms = loss.discriminator(real_scores, fake_scores)

            # A penalty that is due every k-th time counts k times. Its weight may move.
            for each in due:
                value = each.penalty(lambda x: D(x, labels), images, fake, real_scores, fake_scores, mix)
                terms[f"penalty{each.number}"] = each.weigh(value, batch)
            return terms, {"real": real_scores.score, "fake": fake_scores.score}

        def compute_generator_terms(G: GeneratorCall, D: DiscriminatorCall, batch: TensorBatch) -> Terms:
            images = batch["real"]
            labels = batch["labels"]
            latents = batch["latents"]
            assert images is not None and latents is not None
            real_scores = D(images, labels) if loss.needs_real else None
            return loss.generator(D(G(latents, labels), labels), real_scores), {}

        # Update D, then G, each time with new latents.
        reals: dict[str, Tensor | None] = {"real": real.images, "labels": real.labels, "mix": ctx.uniform("mix")}
        batch = {**reals, "latents": ctx.latents("discriminator")}
        d_terms, scores = ctx.minimise("discriminator", "discriminator", compute_discriminator_terms, batch)
        for number in range(self.generator_updates):
            batch = {**reals, "latents": ctx.latents(f"generator {number}")}
            g_terms, _ = ctx.minimise("generator", "generator", compute_generator_terms, batch)

        # The log shows a penalty at its average size, and has no row for it where it was not due.
        for number, penalty in enumerate(loss.penalties):
            name = f"penalty{number}"
            if name in d_terms:
                d_terms[name] = d_terms[name] / penalty.every
        return {
            **{f"Loss/discriminator/{name}": value for name, value in d_terms.items()},
            **{f"Loss/generator/{name}": value for name, value in g_terms.items()},
            "Scores/real": scores["real"].mean(),
            "Scores/fake": scores["fake"].mean(),
        }


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@updates.Mine()`."""
    return [Component("updates", "Mine", Mine)]
