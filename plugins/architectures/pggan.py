"""The networks of Karras et al. 2018 (table 2), at any base size, growth factor and image shape."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pggan_kit.components import Resampling
from pggan_kit.networks import Scores
from pggan_kit.schedule import PerStage, Stage, at_height
from pggan_plugins.architectures.layers import LEAK, EqualizedConv2d, EqualizedLinear, MinibatchStddev, PixelNorm


class PGGAN:
    """Progressive growing as published: equalized learning rate, pixel norm in G, minibatch stddev in D.

    Args:
        channels: maps of each stage's blocks; may be per stage. None: the paper's, `min(8192 / 2^(level + 1), 512)`
            with the stage's index as level.
        pixel_norm: normalise features in G after each layer.
        stddev_group: largest group of D's minibatch statistic; 0 leaves it out.
        pool: `after_activation` is the paper's order in D (convolve, activate, average); `before_activation`
            averages first, which lets the resampling fuse the average into the convolution.

    Raises:
        ValueError: a value out of range.
    """

    preserves_function = True

    def __init__(
        self,
        channels: PerStage[int] | None = None,
        pixel_norm: bool = True,
        stddev_group: int = 4,
        pool: str = "after_activation",
    ) -> None:
        for value in channels.values() if isinstance(channels, Mapping) else (channels,):
            if value is not None and value < 1:
                raise ValueError(f"channels must be at least 1, and is {value}")
        if stddev_group < 0:
            raise ValueError(f"stddev_group must not be negative, and is {stddev_group}")
        if pool not in ("after_activation", "before_activation"):
            raise ValueError(f"pool must be 'after_activation' or 'before_activation', not {pool!r}")
        self.channels = channels
        self.pixel_norm = pixel_norm
        self.stddev_group = stddev_group
        self.pool_first = pool == "before_activation"

    def width(self, stage: Stage) -> int:
        """Maps of a stage's blocks."""
        if self.channels is None:
            return min(8192 // 2 ** (stage.index + 1), 512)
        return at_height(self.channels, stage.height)

    def generator_stem(self, latent_size: int, stage: Stage) -> nn.Module:
        """Latents, normalised, to the base stage's features."""
        return Stem(latent_size, self.width(stage), stage, self._activation())

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """Up, 3x3, 3x3."""
        old, new = self.width(previous), self.width(stage)
        up = resampling.up(old, stage.factor)
        return nn.Sequential(
            EqualizedConv2d(old, new, 3, up=up), self._activation(), EqualizedConv2d(new, new, 3), self._activation()
        )

    def to_image(self, stage: Stage) -> nn.Module:
        """A linear 1x1."""
        return EqualizedConv2d(self.width(stage), stage.image_channels, 1, gain=1.0)

    def generator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_to_image: nn.Module
    ) -> nn.Module:
        """The image of before, made larger."""
        return LargerImage(old_to_image, resampling.up(stage.image_channels, stage.factor))

    def from_image(self, stage: Stage) -> nn.Module:
        """1x1, leaky ReLU."""
        return nn.Sequential(EqualizedConv2d(stage.image_channels, self.width(stage), 1), nn.LeakyReLU(LEAK))

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """3x3, 3x3, down."""
        new, old = self.width(stage), self.width(previous)
        down = resampling.down(old, stage.factor)
        first = [EqualizedConv2d(new, new, 3), nn.LeakyReLU(LEAK)]
        if self.pool_first:
            return nn.Sequential(*first, EqualizedConv2d(new, old, 3, down=down), nn.LeakyReLU(LEAK))
        return nn.Sequential(*first, EqualizedConv2d(new, old, 3), nn.LeakyReLU(LEAK), down)

    def discriminator_head(self, stage: Stage) -> nn.Module:
        """Minibatch stddev, 3x3, full-size convolution, one score."""
        return Head(self.width(stage), stage, self.stddev_group)

    def discriminator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_from_image: nn.Module
    ) -> nn.Module:
        """What was seen before, of a smaller image."""
        return SmallerImage(old_from_image, resampling.down(stage.image_channels, stage.factor))

    def _activation(self) -> nn.Module:
        layers: list[nn.Module] = [nn.LeakyReLU(LEAK)]
        return nn.Sequential(*layers, PixelNorm()) if self.pixel_norm else layers[0]


class Stem(nn.Module):
    """Pixel-normalised latents (N, Z), dense to the base size, 3x3."""

    def __init__(self, latent_size: int, channels: int, stage: Stage, activation: nn.Module) -> None:
        super().__init__()
        self.shape = (channels, stage.height, stage.width)
        pixels = stage.height * stage.width
        # sqrt(2) / 4 at the paper's 4x4: the released code's gain for a layer seen as a full-size convolution.
        self.dense = EqualizedLinear(latent_size, channels * pixels, gain=math.sqrt(2 / pixels), bias=False)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.conv = EqualizedConv2d(channels, channels, 3)
        self.normalise = PixelNorm()
        self.activation = activation

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """(N, Z) -> (N, C, h, w)."""
        x = self.dense(self.normalise(latents)).view(-1, *self.shape) + self.bias
        features: Tensor = self.activation(self.conv(self.activation(x)))
        return features


class Head(nn.Module):
    """The base stage's features to a score."""

    def __init__(self, channels: int, stage: Stage, stddev_group: int) -> None:
        super().__init__()
        self.stddev = MinibatchStddev(stddev_group) if stddev_group else None
        self.conv = EqualizedConv2d(channels + (1 if stddev_group else 0), channels, 3)
        self.dense = EqualizedLinear(channels * stage.height * stage.width, channels)
        self.score = EqualizedLinear(channels, 1, gain=1.0)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Scores:
        """(N, C, h, w) -> Scores of (N,)."""
        if self.stddev is not None:
            x = self.stddev(x)
        x = F.leaky_relu(self.conv(x), LEAK)
        x = F.leaky_relu(self.dense(x.flatten(1)), LEAK)
        return Scores(self.score(x).squeeze(1), labels=labels)


class LargerImage(nn.Module):
    """G's old path: `up(old_to_image(features))`."""

    def __init__(self, old_to_image: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.old_to_image = old_to_image
        self.up = up

    def forward(self, features: Tensor, new_to_image: nn.Module) -> Tensor:
        """Features of the stage before -> images of this one."""
        image: Tensor = self.up(self.old_to_image(features))
        return image


class SmallerImage(nn.Module):
    """D's old path: `old_from_image(down(images))`."""

    def __init__(self, old_from_image: nn.Module, down: nn.Module) -> None:
        super().__init__()
        self.old_from_image = old_from_image
        self.down = down

    def forward(self, images: Tensor, new_features: Tensor, new_from_image: nn.Module) -> Tensor:
        """Images of this stage -> features of the stage before."""
        features: Tensor = self.old_from_image(self.down(images))
        return features
