"""The networks of Karras et al. 2020 (StyleGAN2), grown block by block."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pggan_kit import (
    PerStage,
    Resampling,
    Stage,
    Upsample,
    at_least_float32,
    check_above,
    check_at_least,
    check_between,
    conv2d,
    leaky_relu,
)
from pggan_kit.components import BatchStatistic
from pggan_plugins.architectures.head import Head
from pggan_plugins.architectures.image_fade import ImageSpaceFade
from pggan_plugins.architectures.labels import Conditioning, LabelledLatents
from pggan_plugins.architectures.layers import EPSILON, LEAK, EqualizedLinear, Layers, Residual, SummedImage
from pggan_plugins.architectures.minibatch import describe_minibatch
from pggan_plugins.architectures.widths import check_channels, choose_width

WIDTH_BASE = 16384
"""Numerator of the paper's number of maps: see `choose_width`."""


class Features(NamedTuple):
    """The features that G's blocks pass on.

    Attributes:
        maps: (N, C, h, w).
        styles: (N, L, W), the mapped latents, by layer.
        image: (N, image channels, h, w), summed over the stages so far.
    """

    maps: Tensor
    styles: Tensor
    image: Tensor


class StyleGAN2(ImageSpaceFade):
    """A mapping network and modulated convolutions in G, whose stages' images are summed; a residual D.

    G's image is that of the stage before, made larger, plus the new stage's own. So with the fade in image space alpha
    multiplies only the new stage's image, as long as `train.resampling` enlarges images like `train.image_resampling`;
    at alpha 0 the function is preserved in any case (given the same noise).

    The published network has the resampling [1, 3, 3, 1], does not grow, and is trained with a logistic loss, lazy R1,
    lazy path lengths (`generator_penalties.PathLength`) and mixed styles: in training, the layers from a random one on
    read the style of a second latent (Karras et al. 2019, section 3.1). Every 3x3 convolution reads a style of its own;
    a layer to an image shares that of the next stage's first one, as in the published code. That code multiplies by
    sqrt(2) behind the biases and the noise, and here the weights alone have this gain: biases and noise strengths are
    as large as there where they are sqrt(2) times the published ones, and so learn at 1/sqrt(2) of the speed.

    Args:
        channels: Number of maps of each stage's blocks; may be per stage. None: `min(16384 / 2^(level + 1), 512)` with
            the stage's index as level.
        style_size: Width W of the mapping network and of the styles.
        mapping_layers: Depth of the mapping network, at least 1.
        mapping_lr_multiplier: Factor of the learning speed of its layers, above 0.
        noise: Whether to add noise after each modulated 3x3 convolution, one number per pixel, times a learned strength
            that starts at 0. It is drawn from torch's default generator, in inference too.
        style_mixing: Probability with which an image has two styles in training, in [0, 1]; drawn from torch's default
            generator, as noise is.
        stddev_group: Largest group of D's minibatch statistic.
        conditioning, label_size: Use of labels: see `labels.Conditioning`.

    Raises:
        ValueError: A value is out of range.
    """

    separates_batches = True
    images_at_each_stage = True

    def __init__(
        self,
        channels: PerStage[int] | None = None,
        style_size: int = 512,
        mapping_layers: int = 8,
        mapping_lr_multiplier: float = 0.01,
        noise: bool = True,
        style_mixing: float = 0.9,
        stddev_group: int = 4,
        conditioning: str = "none",
        label_size: int = 32,
    ) -> None:
        # The numbers are checked where they are given, before networks are built from them.
        check_channels(channels)
        counts = {"style_size": style_size, "mapping_layers": mapping_layers, "stddev_group": stddev_group}
        for name, value in counts.items():
            check_at_least(name, value, 1)
        check_above("mapping_lr_multiplier", mapping_lr_multiplier, 0)
        check_between("style_mixing", style_mixing, 0, 1)

        # The noise, the styles and the layers of both networks.
        self.channels = channels
        self.style_size = style_size
        self.mapping_layers = mapping_layers
        self.mapping_lr_multiplier = mapping_lr_multiplier
        self.noise = noise
        self.style_mixing = style_mixing
        self.stddev_group = stddev_group
        self.discriminator_layers = Layers("leaky_relu", "none", equalized_lr=True)
        self.conditioning = Conditioning(conditioning, label_size)
        self.conditional = conditioning != "none"

    def width(self, stage: Stage) -> int:
        """Return the number of maps of a stage's blocks."""
        return choose_width(stage, self.channels, WIDTH_BASE)

    def generator_stem(self, latent_size: int, stage: Stage) -> nn.Module:
        """Return the mapping network, a learned constant, one styled layer and the layer to the first image."""
        latents = self.conditioning.make_latents(latent_size, stage, normalise=True)
        mapping = MappingNetwork(latents, self.style_size, self.mapping_layers, self.mapping_lr_multiplier)
        return Stem(mapping, self.width(stage), self.style_size, stage, self.noise, self.style_mixing)

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """Return two styled layers, and the layer to an image that is added to the one before."""
        return Block(self.width(previous), self.width(stage), self.style_size, stage, self.noise, resampling)

    def to_image(self, stage: Stage) -> nn.Module:
        """Return a module that reads the image summed so far: the layers to images belong to the blocks."""
        return SummedImage()

    def from_image(self, stage: Stage) -> nn.Module:
        """Return a 1x1 from images and its activation."""
        layers = self.discriminator_layers
        conv = layers.conv(stage.image_channels, self.width(stage), 1)
        return nn.Sequential(conv, layers.activation(inplace=True))

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """Return a residual block: 3x3, 3x3, down; beside them down, 1x1; their sum over sqrt(2) keeps the variance."""
        new = self.width(stage)
        old = self.width(previous)
        layers = self.discriminator_layers
        branch = nn.Sequential(
            layers.conv(new, new),
            layers.activation(inplace=True),
            layers.conv(new, old, resample=resampling.down(old, stage.factor)),
            layers.activation(inplace=True),
        )

        # Down first makes the 1x1 cheaper by the square of the factor.
        mix = layers.conv(new, old, 1, gain=1.0, bias=False)
        shortcut = nn.Sequential(resampling.down(new, stage.factor), mix)
        return Residual(branch, shortcut, gain=math.sqrt(0.5))

    def discriminator_head(self, stage: Stage) -> nn.Module:
        """Return D's head: minibatch stddev, 3x3, full-size convolution, one score."""
        return Head(
            self.width(stage), stage, self.discriminator_layers, self.conditioning, stddev_group=self.stddev_group
        )

    def batch_statistics(self, stage: Stage, samples: int) -> list[BatchStatistic]:
        """Return D's minibatch stddev."""
        return describe_minibatch("stddev", self.stddev_group, samples)


class MappingNetwork(nn.Module):
    """Normalised latents (N, Z), mapped through dense layers to styles (N, W)."""

    def __init__(self, latents: LabelledLatents, style_size: int, depth: int, lr_multiplier: float) -> None:
        super().__init__()
        self.latents = latents
        sizes = [latents.size, *[style_size] * depth]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers.append(EqualizedLinear(inputs, outputs, lr_multiplier=lr_multiplier))
            layers.append(nn.LeakyReLU(LEAK))
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """Map latents (N, Z) and labels (N,) | None to styles (N, W)."""
        styles: Tensor = self.layers(self.latents(latents, labels))
        return styles


class ModulatedConv2d(nn.Module):
    """A convolution whose input channels are scaled by the style, and whose outputs are scaled back to unit variance.

    The weights of sample n are `w' = s_n * w`, then `w' / sqrt(sum w'^2 + 1e-8)` with the sum over inputs and kernel
    (Karras et al. 2020, section 2.2). Both factors commute with the convolution, so they are applied to its input and
    output: one convolution with one weight for the whole batch, which the resampling can fuse with its own.

    Args:
        in_channels, out_channels: Numbers of maps.
        kernel_size: Size of the kernel, odd.
        style_size: Width W of the styles.
        demodulate: Whether outputs are scaled to unit variance, times `gain`^2.
        gain: Gain of the layer; sqrt(2) suits a leaky ReLU behind it.
        up: Enlargement before the convolution.
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
        # Styles start around 1, so that the channels start with the same scale.
        self.affine = EqualizedLinear(style_size, in_channels, gain=1.0, bias_start=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.scale = 1 / math.sqrt(in_channels * kernel_size**2)
        self.demodulate = demodulate
        self.gain = gain
        self.up = up

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        """Map features (N, in, h, w) and styles (N, W) to (N, out, h', w')."""
        style = self.affine(styles)
        weight = self.weight * self.scale

        # The factor of each output of each sample.
        factor: Tensor | float = self.gain
        if self.demodulate:
            power = compute_output_power(style, weight)
            factor = (torch.rsqrt(power + EPSILON) * self.gain)[:, :, None, None].to(style.dtype)

        # Scale the input, convolve, scale the output.
        x = x * style[:, :, None, None]
        if self.up is not None:
            return self.up.conv2d(x, weight) * factor
        return conv2d(x, weight, padding=weight.shape[-1] // 2) * factor


def compute_output_power(style: Tensor, weight: Tensor) -> Tensor:
    """Return the sums of the squared weights of modulated convolutions (N, out), in float32 or better.

    In float16 the square of 256 is infinite, and that of 0.0001 is 0.

    Args:
        style: Factors of the inputs (N, in).
        weight: Weights (out, in, k, k), before modulation.
    """
    styles = at_least_float32(style).square()
    weights = at_least_float32(weight).square().sum((2, 3)).T
    # Autocast would compute the product in low precision. A file for other software holds no autocast, not even none.
    if not torch.is_autocast_enabled(style.device.type):
        return styles @ weights
    with torch.autocast(style.device.type, enabled=False):
        return styles @ weights


class StyledLayer(nn.Module):
    """A modulated 3x3, noise, bias, leaky ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, style_size: int, noise: bool, up: Upsample | None = None
    ) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, 3, style_size, up=up)
        self.noise_strength = nn.Parameter(torch.zeros(())) if noise else None
        self.bias = nn.Parameter(torch.zeros(out_channels, 1, 1))

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        """Map features (N, in, h, w) and styles (N, W) to (N, out, h', w')."""
        x = self.conv(x, styles)
        if self.noise_strength is not None:
            # As large as x, and no size in numbers, which an exported file would keep.
            noise = torch.randn_like(x[:, :1], memory_format=torch.contiguous_format)
            x = x + self.noise_strength * noise
        return leaky_relu(x + self.bias, LEAK)


class StyledImage(nn.Module):
    """A modulated 1x1 to an image, linear and without demodulation."""

    def __init__(self, channels: int, image_channels: int, style_size: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(channels, image_channels, 1, style_size, demodulate=False, gain=1.0)
        self.bias = nn.Parameter(torch.zeros(image_channels, 1, 1))

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        """Map features (N, C, h, w) and styles (N, W) to images (N, image channels, h, w)."""
        image: Tensor = self.conv(x, styles) + self.bias
        return image


def get_style(styles: Tensor, layer: int) -> Tensor:
    """Return the style (N, W) of a layer from styles (N, L, W); that of the last one where there are fewer layers."""
    return styles[:, min(layer, styles.shape[1] - 1)]


class Stem(nn.Module):
    """The mapping network, and a learned constant, one styled layer and the layer to the first image: a `StyledStem`.

    Args:
        mapping: The mapping network.
        channels: Number of maps.
        style_size: Width W of the styles.
        stage: The base stage.
        noise: Whether the layer adds noise.
        style_mixing: Probability with which an image has two styles in training.
    """

    def __init__(
        self,
        mapping: MappingNetwork,
        channels: int,
        style_size: int,
        stage: Stage,
        noise: bool,
        style_mixing: float,
    ) -> None:
        super().__init__()
        self.mapping = mapping
        self.style_mixing = style_mixing
        self.constant = nn.Parameter(torch.randn(channels, stage.height, stage.width))
        self.layer = StyledLayer(channels, channels, style_size, noise)
        self.image = StyledImage(channels, stage.image_channels, style_size)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Features:
        """Map latents (N, Z) and labels (N,) | None to the base stage's Features."""
        return self.begin(self.map_latents(latents, labels, blocks=0, training=self.training))

    def map_latents(self, latents: Tensor, labels: Tensor | None, blocks: int, training: bool) -> Tensor:
        """Map latents (N, Z) and labels (N,) | None to styles (N, L, W): two for the stem and two for each block.

        Where `training`, some are mixed.
        """
        layers = 2 * (blocks + 1)
        styles: Tensor = self.mapping(latents, labels)[:, None].expand(-1, layers, -1)
        if not training or self.style_mixing == 0:
            return styles

        # From a random layer on, another latent's styles; the first layer's are always the first's.
        count = len(latents)
        mixed = torch.rand(count, device=latents.device) < self.style_mixing
        change = torch.randint(1, layers, (count,), device=latents.device)
        change = torch.where(mixed, change, layers)
        others = self.mapping(torch.randn_like(latents), labels)[:, None]
        keeps_first = torch.arange(layers, device=latents.device) < change[:, None]
        return torch.where(keeps_first[:, :, None], styles, others)

    def begin(self, styles: Tensor) -> Features:
        """Map styles (N, L, W) to the base stage's Features."""
        # The shape, since `len` is a number, which an exported file would keep.
        maps = self.layer(self.constant.expand(styles.shape[0], -1, -1, -1), get_style(styles, 0))
        return Features(maps, styles, self.image(maps, get_style(styles, 1)))


class Block(nn.Module):
    """Two styled layers, the first of which enlarges the maps; their image is added to the one so far."""

    def __init__(self, old: int, new: int, style_size: int, stage: Stage, noise: bool, resampling: Resampling) -> None:
        super().__init__()
        self.first = StyledLayer(old, new, style_size, noise, up=resampling.up(old, stage.factor))
        self.second = StyledLayer(new, new, style_size, noise)
        self.image = StyledImage(new, stage.image_channels, style_size)
        self.up = resampling.up(stage.image_channels, stage.factor)
        # The layers before it: two of the stem, of which one is to the image, and two of each block.
        self.layers_before = 2 * stage.index - 1

    def forward(self, features: Features) -> Features:
        """Map the Features of the stage before to those of this one."""
        maps, styles, image = features
        first, second, third = (get_style(styles, self.layers_before + place) for place in range(3))
        maps = self.second(self.first(maps, first), second)
        return Features(maps, styles, self.up(image) + self.image(maps, third))
