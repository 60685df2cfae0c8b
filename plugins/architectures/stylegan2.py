"""The networks of Karras et al. 2020 (StyleGAN2), grown block by block."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pggan_kit import PerStage, Resampling, Stage, Upsample, check_above, check_at_least
from pggan_kit.components import BatchStatistic
from pggan_plugins.architectures.labels import Conditioning, LabelledLatents
from pggan_plugins.architectures.layers import EPSILON, LEAK, EqualizedLinear, Layers, Residual
from pggan_plugins.architectures.minibatch import describe_minibatch
from pggan_plugins.architectures.shared import Head, ImageSpaceFade, check_channels, width_at


class Features(NamedTuple):
    """What G's blocks hand on.

    Attributes:
        maps: (N, C, h, w).
        styles: (N, W), the mapped latents.
        image: (N, image channels, h, w), summed over the stages so far.
    """

    maps: Tensor
    styles: Tensor
    image: Tensor


class StyleGAN2(ImageSpaceFade):
    """A mapping network and modulated convolutions in G, whose stages' images are summed; a residual D.

    G's image is that of the stage before, made larger, plus the new stage's own. So with the fade in image space alpha
    multiplies the new stage's image alone, as long as `train.resampling` enlarges images like
    `train.image_resampling`; at alpha 0 the function is preserved in any case (given the same noise).

    The published one has the resampling [1, 3, 3, 1], does not grow, and is trained with a logistic loss, lazy R1,
    path length regularisation and mixed styles; the last two are not here.

    Args:
        channels: maps of each stage's blocks; may be per stage. None: `min(16384 / 2^(level + 1), 512)` with the
            stage's index as level.
        style_size: W, the width of the mapping network and of the styles.
        mapping_layers: its depth, at least 1.
        mapping_lr_multiplier: how much faster than others its layers learn, above 0.
        noise: add noise after each modulated 3x3 convolution, one number a pixel, times a learned strength that starts
            at 0. It is drawn from torch's default generator, in inference too.
        stddev_group: largest group of D's minibatch statistic.
        conditioning, label_size: see `labels.Conditioning`.

    Raises:
        ValueError: a value out of range.
    """

    separates_batches = True

    def __init__(
        self,
        channels: PerStage[int] | None = None,
        style_size: int = 512,
        mapping_layers: int = 8,
        mapping_lr_multiplier: float = 0.01,
        noise: bool = True,
        stddev_group: int = 4,
        conditioning: str = "none",
        label_size: int = 32,
    ) -> None:
        check_channels(channels)
        counts = {"style_size": style_size, "mapping_layers": mapping_layers, "stddev_group": stddev_group}
        for name, value in counts.items():
            check_at_least(name, value, 1)
        check_above("mapping_lr_multiplier", mapping_lr_multiplier, 0)
        self.channels = channels
        self.style_size = style_size
        self.mapping_layers = mapping_layers
        self.mapping_lr_multiplier = mapping_lr_multiplier
        self.noise = noise
        self.stddev_group = stddev_group
        self.discriminator_layers = Layers("leaky_relu", "none", equalized_lr=True)
        self.conditioning = Conditioning(conditioning, label_size)
        self.conditional = conditioning != "none"

    def width(self, stage: Stage) -> int:
        """Maps of a stage's blocks."""
        return width_at(stage, self.channels, 16384)

    def generator_stem(self, latent_size: int, stage: Stage) -> nn.Module:
        """Latents to styles; a learned constant, one styled layer and the first image."""
        latents = self.conditioning.latents(latent_size, stage, normalise=True)
        mapping = MappingNetwork(latents, self.style_size, self.mapping_layers, self.mapping_lr_multiplier)
        return Stem(mapping, self.width(stage), self.style_size, stage, self.noise)

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """Two styled layers, and an image that is added to the one before."""
        return Block(self.width(previous), self.width(stage), self.style_size, stage, self.noise, resampling)

    def to_image(self, stage: Stage) -> nn.Module:
        """The image summed so far: the blocks own the layers that make it."""
        return SummedImage()

    def from_image(self, stage: Stage) -> nn.Module:
        """1x1 and activation."""
        layers = self.discriminator_layers
        return nn.Sequential(layers.conv(stage.image_channels, self.width(stage), 1), layers.activation(inplace=True))

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """3x3, 3x3, down; beside them down, 1x1; their sum over sqrt(2), so that its variance stays."""
        new, old, layers = self.width(stage), self.width(previous), self.discriminator_layers
        branch = nn.Sequential(
            layers.conv(new, new),
            layers.activation(inplace=True),
            layers.conv(new, old, down=resampling.down(old, stage.factor)),
            layers.activation(inplace=True),
        )
        shortcut = nn.Sequential(resampling.down(new, stage.factor), layers.conv(new, old, 1, gain=1.0, bias=False))
        return Residual(branch, shortcut, gain=math.sqrt(0.5))

    def discriminator_head(self, stage: Stage) -> nn.Module:
        """Minibatch stddev, 3x3, full-size convolution, one score."""
        return Head(
            self.width(stage), stage, self.discriminator_layers, self.conditioning, stddev_group=self.stddev_group
        )

    def batch_statistics(self, stage: Stage, samples: int) -> list[BatchStatistic]:
        """Return D's minibatch stddev."""
        return describe_minibatch("stddev", self.stddev_group, samples)


class MappingNetwork(nn.Module):
    """Latents (N, Z), normalised, through dense layers to styles (N, W)."""

    def __init__(self, latents: LabelledLatents, style_size: int, depth: int, lr_multiplier: float) -> None:
        super().__init__()
        self.latents = latents
        sizes = [latents.size, *[style_size] * depth]
        dense = [EqualizedLinear(a, b, lr_multiplier=lr_multiplier) for a, b in pairwise(sizes)]
        self.layers = nn.Sequential(*(layer for each in dense for layer in (each, nn.LeakyReLU(LEAK))))

    def forward(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """(N, Z), (N,) | None -> (N, W)."""
        styles: Tensor = self.layers(self.latents(latents, labels))
        return styles


class ModulatedConv2d(nn.Module):
    """A convolution whose input channels are scaled by the style and whose outputs are brought back to unit variance
    (Karras et al. 2020, section 2.2): the weights of sample n are `w' = s_n * w`, then `w' / sqrt(sum w'^2 + 1e-8)`,
    the sum over inputs and kernel.

    Both factors commute with the convolution, so they are applied to its input and output: one convolution with one
    weight for the whole batch, which the resampling can fuse with its own.

    Args:
        in_channels, out_channels, kernel_size: of the convolution; kernel_size is odd.
        style_size: W.
        demodulate: whether outputs are brought to unit variance, times `gain`^2.
        gain: sqrt(2) suits a leaky ReLU behind it.
        up: enlarge before the convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        style_size: int,
        demodulate: bool = True,
        gain: float = math.sqrt(2),
        up: Upsample | None = None,
    ) -> None:
        super().__init__()
        self.affine = EqualizedLinear(style_size, in_channels, gain=1.0, bias_start=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.scale = 1 / math.sqrt(in_channels * kernel_size**2)
        self.demodulate = demodulate
        self.gain = gain
        self.up = up

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        """(N, in, h, w), (N, W) -> (N, out, h', w')."""
        style = self.affine(styles)
        weight = self.weight * self.scale
        factor: Tensor | float = self.gain
        if self.demodulate:
            power = style.square() @ weight.square().sum((2, 3)).T
            factor = (torch.rsqrt(power + EPSILON) * self.gain)[:, :, None, None]
        x = x * style[:, :, None, None]
        if self.up is not None:
            return self.up.conv2d(x, weight) * factor
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2) * factor


class StyledLayer(nn.Module):
    """Modulated 3x3, noise, bias, leaky ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, style_size: int, noise: bool, up: Upsample | None = None
    ) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, 3, style_size, up=up)
        self.noise_strength = nn.Parameter(torch.zeros(())) if noise else None
        self.bias = nn.Parameter(torch.zeros(out_channels, 1, 1))

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        """(N, in, h, w), (N, W) -> (N, out, h', w')."""
        x = self.conv(x, styles)
        if self.noise_strength is not None:
            n, _, h, w = x.shape
            x = x + self.noise_strength * torch.randn(n, 1, h, w, device=x.device, dtype=x.dtype)
        return F.leaky_relu(x + self.bias, LEAK)


class StyledImage(nn.Module):
    """A modulated 1x1 to an image, linear and without demodulation."""

    def __init__(self, channels: int, image_channels: int, style_size: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(channels, image_channels, 1, style_size, demodulate=False, gain=1.0)
        self.bias = nn.Parameter(torch.zeros(image_channels, 1, 1))

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        """(N, C, h, w), (N, W) -> (N, image channels, h, w)."""
        image: Tensor = self.conv(x, styles) + self.bias
        return image


class Stem(nn.Module):
    """Latents (N, Z) to styles; a learned constant, styled, and its image."""

    def __init__(self, mapping: MappingNetwork, channels: int, style_size: int, stage: Stage, noise: bool) -> None:
        super().__init__()
        self.mapping = mapping
        self.constant = nn.Parameter(torch.randn(channels, stage.height, stage.width))
        self.layer = StyledLayer(channels, channels, style_size, noise)
        self.image = StyledImage(channels, stage.image_channels, style_size)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Features:
        """(N, Z), (N,) | None -> Features of the base stage."""
        styles = self.mapping(latents, labels)
        maps = self.layer(self.constant.expand(len(styles), -1, -1, -1), styles)
        return Features(maps, styles, self.image(maps, styles))


class Block(nn.Module):
    """Two styled layers, the first of which makes maps larger; their image is added to the one so far."""

    def __init__(self, old: int, new: int, style_size: int, stage: Stage, noise: bool, resampling: Resampling) -> None:
        super().__init__()
        self.first = StyledLayer(old, new, style_size, noise, up=resampling.up(old, stage.factor))
        self.second = StyledLayer(new, new, style_size, noise)
        self.image = StyledImage(new, stage.image_channels, style_size)
        self.up = resampling.up(stage.image_channels, stage.factor)

    def forward(self, features: Features) -> Features:
        """Features of the stage before -> Features of this one."""
        maps, styles, image = features
        maps = self.second(self.first(maps, styles), styles)
        return Features(maps, styles, self.up(image) + self.image(maps, styles))


class SummedImage(nn.Module):
    """Features -> their image."""

    def forward(self, features: Features) -> Tensor:
        """Features -> (N, image channels, h, w)."""
        return features.image
