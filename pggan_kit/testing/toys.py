"""The smallest parts that train: they stand around the part under test, so that suites need no plugin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pggan_kit.components import (
    ChosenOptimizers,
    DiscriminatorCall,
    GeneratorCall,
    Part,
    Penalty,
    Resampling,
    Scores,
    StepContext,
)
from pggan_kit.schedule import Stage, at_height
from pggan_kit.system.seeding import numpy_generator

WIDTH = 6


class ToyArchitecture:
    """One convolution a stage, tanh throughout: smooth, so that it can be differentiated often."""

    preserves_function = True
    conditional = False

    def generator_stem(self, latent_size: int, stage: Stage) -> nn.Module:
        """Dense, tanh."""
        return _Stem(latent_size, stage)

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """Up, 3x3, tanh."""
        return nn.Sequential(resampling.up(WIDTH, stage.factor), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.Tanh())

    def to_image(self, stage: Stage) -> nn.Module:
        """1x1."""
        return nn.Conv2d(WIDTH, stage.image_channels, 1)

    def generator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_to_image: nn.Module
    ) -> nn.Module:
        """The image of before, made larger."""
        return _GeneratorBridge(old_to_image, resampling.up(stage.image_channels, stage.factor))

    def from_image(self, stage: Stage) -> nn.Module:
        """1x1, tanh."""
        return nn.Sequential(nn.Conv2d(stage.image_channels, WIDTH, 1), nn.Tanh())

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """3x3, tanh, down."""
        return nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.Tanh(), resampling.down(WIDTH, stage.factor))

    def discriminator_head(self, stage: Stage) -> nn.Module:
        """Dense."""
        return _Head(stage)

    def discriminator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_from_image: nn.Module
    ) -> nn.Module:
        """What was seen before, of a smaller image."""
        return _DiscriminatorBridge(old_from_image, resampling.down(stage.image_channels, stage.factor))


class _Stem(nn.Module):
    def __init__(self, latent_size: int, stage: Stage) -> None:
        super().__init__()
        self.shape = (WIDTH, stage.height, stage.width)
        self.dense = nn.Linear(latent_size, WIDTH * stage.height * stage.width)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        features: Tensor = self.dense(latents).view(-1, *self.shape)
        return features.tanh()


class _Head(nn.Module):
    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.dense = nn.Linear(WIDTH * stage.height * stage.width, 1)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Scores:
        return Scores(self.dense(features.flatten(1)).squeeze(1), labels=labels)


class _GeneratorBridge(nn.Module):
    def __init__(self, old_to_image: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.old_to_image, self.up = old_to_image, up

    def forward(self, features: Tensor, new_to_image: nn.Module) -> Any:
        return self.up(self.old_to_image(features))


class _DiscriminatorBridge(nn.Module):
    def __init__(self, old_from_image: nn.Module, down: nn.Module) -> None:
        super().__init__()
        self.old_from_image, self.down = old_from_image, down

    def forward(self, images: Tensor, new_features: Tensor, new_from_image: nn.Module) -> Any:
        return self.old_from_image(self.down(images))


class ToyLoss:
    """The logistic loss with any penalties."""

    needs_real = False

    def __init__(self, penalties: Sequence[Penalty] = ()) -> None:
        self.penalties = tuple(penalties)

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """`logistic`."""
        return {"logistic": F.softplus(-real.score).mean() + F.softplus(fake.score).mean()}

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """`logistic`."""
        return {"logistic": F.softplus(-fake.score).mean()}


class ToyUpdate:
    """D, then G, on the same reals."""

    def optimizers(
        self, experiment: ChosenOptimizers, stage: Stage, generator: nn.Module, discriminator: nn.Module
    ) -> dict[str, torch.optim.Optimizer]:
        """One for each network."""
        assert experiment.generator_optimizer is not None and experiment.discriminator_optimizer is not None
        return {
            "G": experiment.generator_optimizer.build(generator.parameters(), stage),
            "D": experiment.discriminator_optimizer.build(discriminator.parameters(), stage),
        }

    def step(self, ctx: StepContext) -> dict[str, Tensor]:
        """`Loss/discriminator` without penalties, `Loss/generator`, and the scores that other parts may want."""
        real = ctx.reals()
        due, loss = ctx.due(ctx.loss.penalties), ctx.loss

        def judge(G: GeneratorCall, D: DiscriminatorCall, part: Part) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            images, labels, latents, mix = (part[name] for name in ("real", "labels", "latents", "mix"))
            assert images is not None and latents is not None and mix is not None
            with torch.no_grad():
                fake = G(latents, labels)
            scores, fake_scores = D(images, labels), D(fake, labels)
            terms = loss.discriminator(scores, fake_scores)
            for index, penalty in enumerate(due):
                value = penalty(lambda x: D(x, labels), images, fake, scores, fake_scores, mix)
                weight: float = at_height(penalty.weight, images.shape[-2])
                terms[f"penalty{index}"] = weight * penalty.every * value
            return terms, {"real": scores.score, "fake": fake_scores.score}

        def make(G: GeneratorCall, D: DiscriminatorCall, part: Part) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            latents, images = part["latents"], part["real"]
            assert latents is not None and images is not None
            scores = D(images, part["labels"]) if loss.needs_real else None
            return loss.generator(D(G(latents, part["labels"]), part["labels"]), scores), {}

        batch: dict[str, Tensor | None] = {"real": real.images, "labels": real.labels, "mix": ctx.uniform("mix")}
        d_terms, scores = ctx.minimise("D", "discriminator", judge, {**batch, "latents": ctx.latents("D")})
        g_terms, _ = ctx.minimise("G", "generator", make, {**batch, "latents": ctx.latents("G")})
        return {
            "Loss/discriminator": summed({k: v for k, v in d_terms.items() if not k.startswith("penalty")}),
            "Loss/generator": summed(g_terms),
            "Scores/real": scores["real"].mean(),
            "Scores/fake": scores["fake"].mean(),
            "Scores/real_sign": scores["real"].sign().mean(),
        }


def summed(terms: Mapping[str, Tensor]) -> Tensor:
    """The sum of a dict's 0-dim tensors."""
    return torch.stack(list(terms.values())).sum()


class ToyOptimizer:
    """Gradient descent with momentum, so that there is state to carry over."""

    def build(self, params: Iterable[nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
        """A new one."""
        return torch.optim.SGD(params, lr=0.05, momentum=0.9)


class ToyDataset:
    """Sixteen 8x8 gray images of noise.

    Args:
        classes: labels go round 0, 1, ..., classes - 1.
        channels: 1 or 3.
    """

    def __init__(self, classes: int = 0, channels: int = 1) -> None:
        self.classes = classes
        self.channels = channels

    def __len__(self) -> int:
        return 16

    def image(self, i: int) -> np.ndarray:
        """uint8 (8, 8, C)."""
        return numpy_generator(0, "toy", i).integers(0, 256, (8, 8, self.channels), np.uint8)

    def label(self, i: int) -> int:
        """`i` modulo the number of classes."""
        return i % self.classes if self.classes else 0

    def fingerprint(self) -> str:
        """Names what it holds."""
        return f"toy {self.classes} {self.channels}"


class ToyData:
    """Stands in for `data.Data`: noise of the stage's size, the same at the same place of the clock."""

    def __init__(self, classes: int = 0) -> None:
        self.classes = classes

    def sampler(self, stage: Stage) -> ToySampler:
        """A source of the stage's reals."""
        return ToySampler(stage)


class ToySampler:
    """A source of reals for `StepContext`: each place of the clock has its own image, whatever the batch size."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def batch(self, position: int, count: int) -> tuple[Tensor, Tensor | None]:
        """uint8 (count, C, h, w), and labels (count,) or None."""
        shape = (self.stage.image_channels, self.stage.height, self.stage.width)
        places = range(position, position + count)
        images = np.stack([numpy_generator(0, "reals", place).integers(0, 256, shape, np.uint8) for place in places])
        labels = torch.tensor([place % self.stage.classes for place in places]) if self.stage.classes else None
        return torch.from_numpy(images), labels
