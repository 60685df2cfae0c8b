"""The smallest components that train: they surround the component under test, so that suites need no plugin."""

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
    Penalty,
    Resampling,
    Scores,
    StepContext,
    TensorBatch,
)
from pggan_kit.layers.value_maps import BYTES
from pggan_kit.schedule import Stage
from pggan_kit.system.seeding import numpy_generator

WIDTH = 6
"""Number of feature maps."""

PENALTY = "penalty"
"""Beginning of the names of penalties' terms."""


class ToyArchitecture:
    """An architecture of one convolution a stage, tanh throughout: smooth, so that it can be differentiated often."""

    preserves_function = True
    conditional = False

    def generator_stem(self, latent_size: int, stage: Stage) -> nn.Module:
        """Return a dense layer with tanh."""
        return _Stem(latent_size, stage)

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """Return `up`, a 3x3 convolution, and tanh."""
        return nn.Sequential(resampling.up(WIDTH, stage.factor), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.Tanh())

    def to_image(self, stage: Stage) -> nn.Module:
        """Return a 1x1 convolution."""
        return nn.Conv2d(WIDTH, stage.image_channels, 1)

    def generator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_to_image: nn.Module
    ) -> nn.Module:
        """Return the old path: the image of before, made larger."""
        return _GeneratorBridge(old_to_image, resampling.up(stage.image_channels, stage.factor))

    def from_image(self, stage: Stage) -> nn.Module:
        """Return a 1x1 convolution with tanh."""
        return nn.Sequential(nn.Conv2d(stage.image_channels, WIDTH, 1), nn.Tanh())

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """Return a 3x3 convolution, tanh, and `down`."""
        return nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.Tanh(), resampling.down(WIDTH, stage.factor))

    def discriminator_head(self, stage: Stage) -> nn.Module:
        """Return a dense layer."""
        return _Head(stage)

    def encoder_head(self, stage: Stage, latent_size: int) -> nn.Module:
        """Return a dense layer."""
        return nn.Sequential(nn.Flatten(), nn.Linear(WIDTH * stage.height * stage.width, latent_size))

    def discriminator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_from_image: nn.Module
    ) -> nn.Module:
        """Return the old path: the features of before, of a smaller image."""
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
        self.old_to_image = old_to_image
        self.up = up

    def forward(self, features: Tensor, new_to_image: nn.Module) -> Any:
        return self.up(self.old_to_image(features))


class _DiscriminatorBridge(nn.Module):
    def __init__(self, old_from_image: nn.Module, down: nn.Module) -> None:
        super().__init__()
        self.old_from_image = old_from_image
        self.down = down

    def forward(self, images: Tensor, new_features: Tensor, new_from_image: nn.Module) -> Any:
        return self.old_from_image(self.down(images))


class TwoModeToyArchitecture(ToyArchitecture):
    """The toy whose blocks drop units and keep a running mean in training mode, and do neither in inference mode."""

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """Return the toy's block, and a `_TwoModes`."""
        return nn.Sequential(super().generator_block(previous, stage, resampling), _TwoModes())

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """Return the toy's block, and a `_TwoModes`."""
        return nn.Sequential(super().discriminator_block(stage, previous, resampling), _TwoModes())


class _TwoModes(nn.Module):
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.lerp_(x.detach().mean(), 0.1)
        return F.dropout(x, 0.1, self.training)


class ToyLoss:
    """The logistic loss with any penalties."""

    needs_real = False

    def __init__(self, penalties: Sequence[Penalty] = ()) -> None:
        self.penalties = tuple(penalties)

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """Return `logistic`."""
        return {"logistic": F.softplus(-real.score).mean() + F.softplus(fake.score).mean()}

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """Return `logistic`."""
        return {"logistic": F.softplus(-fake.score).mean()}


class ToyUpdate:
    """An update of D, then of G, on the same reals."""

    def optimizers(
        self, experiment: ChosenOptimizers, stage: Stage, generator: nn.Module, discriminator: nn.Module
    ) -> dict[str, torch.optim.Optimizer]:
        """Return one optimizer for each network."""
        assert experiment.generator_optimizer is not None and experiment.discriminator_optimizer is not None
        return {
            "G": experiment.generator_optimizer.build(generator.parameters(), stage),
            "D": experiment.discriminator_optimizer.build(discriminator.parameters(), stage),
        }

    def step(self, ctx: StepContext) -> dict[str, Tensor]:
        """Return `Loss/discriminator` without penalties, `Loss/generator`, and scores that other components may use."""
        loss = ctx.loss
        real = ctx.reals()
        due = ctx.due(loss.penalties)

        def compute_d_terms(
            G: GeneratorCall, D: DiscriminatorCall, batch: TensorBatch
        ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            images, labels, latents, mix = (batch[name] for name in ("real", "labels", "latents", "mix"))
            assert images is not None and latents is not None and mix is not None
            with torch.no_grad():
                fake = G(latents, labels)
            scores = D(images, labels)
            fake_scores = D(fake, labels)

            # Penalties that are due, weighted for the turns that were left out.
            terms = loss.discriminator(scores, fake_scores)
            for index, each in enumerate(due):
                value = each.penalty(lambda x: D(x, labels), images, fake, scores, fake_scores, mix)
                terms[f"{PENALTY}{index}"] = each.weigh(value, batch)
            return terms, {"real": scores.score, "fake": fake_scores.score}

        def compute_g_terms(
            G: GeneratorCall, D: DiscriminatorCall, batch: TensorBatch
        ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            images, labels, latents = (batch[name] for name in ("real", "labels", "latents"))
            assert latents is not None and images is not None
            scores = D(images, labels) if loss.needs_real else None
            return loss.generator(D(G(latents, labels), labels), scores), {}

        # D first, and G against the D that has just learned.
        shared: dict[str, Tensor | None] = {"real": real.images, "labels": real.labels, "mix": ctx.uniform("mix")}
        d_terms, scores = ctx.minimise("D", "discriminator", compute_d_terms, {**shared, "latents": ctx.latents("D")})
        g_terms, _ = ctx.minimise("G", "generator", compute_g_terms, {**shared, "latents": ctx.latents("G")})

        adversarial = {name: value for name, value in d_terms.items() if not name.startswith(PENALTY)}
        return {
            "Loss/discriminator": sum_terms(adversarial),
            "Loss/generator": sum_terms(g_terms),
            "Scores/real": scores["real"].mean(),
            "Scores/fake": scores["fake"].mean(),
            "Scores/real_sign": scores["real"].sign().mean(),
        }


def sum_terms(terms: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of a dict's 0-dim tensors."""
    return torch.stack(list(terms.values())).sum()


class ToyOptimizer:
    """Gradient descent with momentum, so that there is state to carry over."""

    def build(self, params: Iterable[nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
        """Return a new optimizer."""
        return torch.optim.SGD(params, lr=0.05, momentum=0.9)


class ToyDataset:
    """Sixteen 8x8 gray images of noise.

    Args:
        classes: Number of classes; labels are 0, 1, ..., classes - 1, 0, ....
        channels: Channels of the images.
    """

    def __init__(self, classes: int = 0, channels: int = 1) -> None:
        self.classes = classes
        self.channels = channels

    def __len__(self) -> int:
        return 16

    def image(self, i: int) -> np.ndarray:
        """Return uint8 (8, 8, C)."""
        return numpy_generator(0, "toy", i).integers(0, 256, (8, 8, self.channels), np.uint8)

    def label(self, i: int) -> int:
        """Return `i` modulo the number of classes, 0 without classes."""
        return i % self.classes if self.classes else 0

    def fingerprint(self) -> str:
        """Return a text that names the images."""
        return f"toy {self.classes} {self.channels}"

    def row_fingerprints(self) -> list[str]:
        """Return a text for each image, which names it."""
        return [f"{i} {self.channels}" for i in range(16)]


class ToyData:
    """A replacement of `data.Data`: noise of the stage's size, the same at the same place of the clock."""

    def __init__(self, classes: int = 0) -> None:
        self.classes = classes

    def sampler(self, stage: Stage) -> ToySampler:
        """Return a source of the stage's reals."""
        return ToySampler(stage)


class ToySampler:
    """A source of reals for `StepContext`: each place of the clock has its own image, whatever the batch size."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.values = BYTES

    def batch(self, position: int, count: int) -> tuple[Tensor, Tensor | None]:
        """Return uint8 (count, C, h, w), and labels (count,) or None."""
        shape = (self.stage.image_channels, self.stage.height, self.stage.width)
        places = range(position, position + count)
        images = np.stack([numpy_generator(0, "reals", place).integers(0, 256, shape, np.uint8) for place in places])
        labels = None
        if self.stage.classes:
            labels = torch.tensor([place % self.stage.classes for place in places])
        return torch.from_numpy(images), labels
