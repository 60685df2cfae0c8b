"""A plugin with BiGAN (Donahue et al. 2017, Dumoulin et al. 2017): D judges pairs of an image and a latent.

The reals' latents come from an encoder E, which grows along; the fakes' images come from the generator.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pggan_kit import Component, Scores, Stage, hookimpl
from pggan_plugins.architectures import PGGAN


class PairHead(nn.Module):
    """Features of an image, and a latent in the place of its label -> a score."""

    def __init__(self, features: int, latent_size: int) -> None:
        super().__init__()
        self.image = nn.Linear(features, latent_size)
        self.pair = nn.Sequential(nn.Linear(2 * latent_size, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))

    def forward(self, features: Tensor, latents: Tensor) -> Scores:
        pair = torch.cat([self.image(features.flatten(1)), latents], 1)
        return Scores(self.pair(pair).squeeze(1))


class Pairs(PGGAN):
    """PGGAN, whose discriminator reads latents beside images."""

    def __init__(self, latent_size: int, channels: int = 32) -> None:
        super().__init__(channels, minibatch="none")
        self.latent_size = latent_size

    def discriminator_head(self, stage: Stage) -> nn.Module:
        return PairHead(self.width(stage) * stage.height * stage.width, self.latent_size)


class BiGAN:
    """An update of D, of G and of E on the same reals. G learns by the chosen loss, and E by the logistic one."""

    def optimizers(self, experiment: Any, stage: Stage, generator: nn.Module, discriminator: nn.Module) -> Any:
        return {
            "generator": build_optimizer(experiment, "generator", generator, stage),
            "discriminator": build_optimizer(experiment, "discriminator", discriminator, stage),
        }

    def encoder_optimizers(self, experiment: Any, stage: Stage, encoder: nn.Module) -> Any:
        return {"encoder": build_optimizer(experiment, "encoder", encoder, stage)}

    def step(self, ctx: Any) -> dict[str, Tensor]:
        real = ctx.reals().images
        due = ctx.due(ctx.loss.penalties)
        batch = {"real": real, "latents": ctx.latents("discriminator"), "mix": ctx.uniform("mix")}
        terms = functools.partial(discriminator_terms, loss=ctx.loss, due=due)
        d_losses, scores = ctx.minimise("discriminator", "discriminator", terms, batch)

        batch = {"real": real, "latents": ctx.latents("generator")}
        g_losses, _ = ctx.minimise("generator", "generator", functools.partial(generator_terms, loss=ctx.loss), batch)
        e_losses, _ = ctx.minimise("encoder", "encoder", encoder_terms, {"real": real})

        report = {f"Scores/{name}": score.mean() for name, score in scores.items()}
        for net, losses in (("discriminator", d_losses), ("generator", g_losses), ("encoder", e_losses)):
            report |= {f"Loss/{net}/{name}": value for name, value in losses.items()}
        return report


def build_optimizer(experiment: Any, net: str, network: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    chosen = getattr(experiment, f"{net}_optimizer")
    if chosen is None:
        raise ValueError(f"updates.BiGAN needs train.{net}_optimizer: bind it")
    built: torch.optim.Optimizer = chosen.build(network.parameters(), stage)
    return built


def discriminator_terms(G: Any, D: Any, E: Any, batch: Any, loss: Any, due: Any) -> Any:
    with torch.no_grad():
        fake = G(batch["latents"])
        codes = E(batch["real"])
    real_scores = D(batch["real"], codes)
    fake_scores = D(fake, batch["latents"])
    terms = loss.discriminator(real_scores, fake_scores)
    for each in due:
        given = (lambda images: D(images, codes), batch["real"], fake, real_scores, fake_scores, batch["mix"])
        terms[type(each.penalty).__name__] = each.weigh(each.penalty(*given), batch)
    return terms, {"real": real_scores.score, "fake": fake_scores.score}


def generator_terms(G: Any, D: Any, E: Any, batch: Any, loss: Any) -> Any:
    real_scores = D(batch["real"], E(batch["real"])) if loss.needs_real else None
    return loss.generator(D(G(batch["latents"]), batch["latents"]), real_scores), {}


def encoder_terms(G: Any, D: Any, E: Any, batch: Any) -> Any:
    # E wants its pairs of an image and a code to be taken for those of the generator.
    return {"logistic": F.softplus(D(batch["real"], E(batch["real"])).score).mean()}, {}


@hookimpl
def components() -> list[Component]:
    return [Component("architectures", "Pairs", Pairs), Component("updates", "BiGAN", BiGAN)]
