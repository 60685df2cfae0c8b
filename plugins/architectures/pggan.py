"""The networks of Karras et al. 2018 (table 2), at any base size, growth factor and image shape."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pggan_kit import PerStage, Resampling, Stage, check_at_least, check_choice
from pggan_kit.components import BatchStatistic
from pggan_plugins.architectures.labels import Conditioning, LabelledLatents
from pggan_plugins.architectures.layers import Layers, check_layers, describe_batch_norm, to_image_layer
from pggan_plugins.architectures.minibatch import MINIBATCH, describe_minibatch
from pggan_plugins.architectures.shared import Head, ImageSpaceFade, check_channels, width_at

POOLS = ("after_activation", "before_activation")


class PGGAN(ImageSpaceFade):
    """Progressive growing as published: equalized learning rate, pixel norm in G, minibatch stddev in D.

    The options besides are those of the paper's ablation (table 1), and common ones of the field.

    Args:
        channels: maps of each stage's blocks; may be per stage. None: the paper's, `min(8192 / 2^(level + 1), 512)`
            with the stage's index as level.
        generator_norm: `pixel`, `batch`, `layer` or `none`, with each 3x3 convolution of G: see `layers.Layers`.
        discriminator_norm: `none`, `layer`, `spectral` or `batch`; `spectral` in all layers, the others with each 3x3
            and full-size convolution.
        generator_activation, discriminator_activation: `leaky_relu` or `relu`.
        equalized_lr: scale weights at run time (section 4.1), not once when they are drawn.
        latent_norm: pixel norm of the latents.
        output: of G: `linear` or `tanh`.
        minibatch: what D is told of the batch: `stddev`, `discrimination` (100 kernels of size 5) or `none`.
        stddev_group: largest group of `stddev`.
        pool: `after_activation` is the paper's order in D (convolve, activate, average); `before_activation`
            averages first, which lets the resampling fuse the average into the convolution.
        conditioning, label_size: see `labels.Conditioning`.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self,
        channels: PerStage[int] | None = None,
        generator_norm: str = "pixel",
        discriminator_norm: str = "none",
        generator_activation: str = "leaky_relu",
        discriminator_activation: str = "leaky_relu",
        equalized_lr: bool = True,
        latent_norm: bool = True,
        output: str = "linear",
        minibatch: str = "stddev",
        stddev_group: int = 4,
        pool: str = "after_activation",
        conditioning: str = "none",
        label_size: int = 32,
    ) -> None:
        check_channels(channels)
        activations = {
            "generator_activation": generator_activation,
            "discriminator_activation": discriminator_activation,
        }
        check_layers(activations, generator_norm, discriminator_norm, output)
        check_choice("minibatch", minibatch, MINIBATCH)
        check_at_least("stddev_group", stddev_group, 1)
        check_choice("pool", pool, POOLS)
        self.channels = channels
        self.generator_layers = Layers(generator_activation, generator_norm, equalized_lr)
        self.discriminator_layers = Layers(discriminator_activation, discriminator_norm, equalized_lr)
        self.latent_norm = latent_norm
        self.output = output
        self.minibatch = minibatch
        self.stddev_group = stddev_group
        self.pool_first = pool == "before_activation"
        self.conditioning = Conditioning(conditioning, label_size)
        self.conditional = conditioning != "none"
        self.separates_batches = minibatch != "discrimination"

    def width(self, stage: Stage) -> int:
        """Maps of a stage's blocks."""
        return width_at(stage, self.channels, 8192)

    def generator_stem(self, latent_size: int, stage: Stage) -> nn.Module:
        """Latents, normalised, to the base stage's features."""
        latents = self.conditioning.latents(latent_size, stage, self.latent_norm)
        return Stem(latents, self.width(stage), stage, self.generator_layers)

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """Up, 3x3, 3x3."""
        old, new, layers = self.width(previous), self.width(stage), self.generator_layers
        up = resampling.up(old, stage.factor)
        return nn.Sequential(
            layers.conv(old, new, up=up, bias=layers.biased),
            layers.after(new),
            layers.conv(new, new, bias=layers.biased),
            layers.after(new),
        )

    def to_image(self, stage: Stage) -> nn.Module:
        """A 1x1."""
        conv = self.generator_layers.conv(self.width(stage), stage.image_channels, 1, gain=1.0)
        return to_image_layer(conv, self.output)

    def from_image(self, stage: Stage) -> nn.Module:
        """1x1 and activation."""
        layers = self.discriminator_layers
        return nn.Sequential(layers.conv(stage.image_channels, self.width(stage), 1), layers.activation(inplace=True))

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """3x3, 3x3, down."""
        new, old, layers = self.width(stage), self.width(previous), self.discriminator_layers
        down = resampling.down(old, stage.factor)
        first = [layers.conv(new, new, bias=layers.biased), layers.after(new)]
        if self.pool_first:
            return nn.Sequential(*first, layers.conv(new, old, down=down, bias=layers.biased), layers.after(old))
        return nn.Sequential(*first, layers.conv(new, old, bias=layers.biased), layers.after(old), down)

    def discriminator_head(self, stage: Stage) -> nn.Module:
        """Minibatch statistic, 3x3, full-size convolution, one score."""
        layers = self.discriminator_layers
        return Head(self.width(stage), stage, layers, self.conditioning, self.minibatch, self.stddev_group)

    def batch_statistics(self, stage: Stage, samples: int) -> list[BatchStatistic]:
        """Return batch norm in either network, and what D is told of the batch.

        Raises:
            ValueError: D's dense layer has batch norm, and there is one sample.
        """
        if samples == 1 and self.discriminator_layers.norm == "batch":
            raise ValueError(
                "discriminator_norm = 'batch' needs at least 2 samples in a call: after a dense layer a sample has "
                "one value of a kind"
            )
        return [
            *describe_batch_norm("generator", self.generator_layers, samples),
            *describe_batch_norm("discriminator", self.discriminator_layers, samples),
            *describe_minibatch(self.minibatch, self.stddev_group, samples),
        ]


class Stem(nn.Module):
    """Latents (N, Z), dense to the base size, 3x3."""

    def __init__(self, latents: LabelledLatents, channels: int, stage: Stage, layers: Layers) -> None:
        super().__init__()
        self.shape = (channels, stage.height, stage.width)
        pixels = stage.height * stage.width
        self.latents = latents
        # sqrt(2) / 4 at the paper's 4x4: the released code's gain for a layer seen as a full-size convolution.
        self.dense = layers.dense(latents.size, channels * pixels, gain=math.sqrt(2 / pixels), bias=False)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1)) if layers.biased else None
        self.after_dense = layers.after(channels)
        self.conv = layers.conv(channels, channels, bias=layers.biased)
        self.after_conv = layers.after(channels)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """(N, Z), (N,) | None -> (N, C, h, w)."""
        x = self.dense(self.latents(latents, labels)).view(-1, *self.shape)
        if self.bias is not None:
            x = x + self.bias
        features: Tensor = self.after_conv(self.conv(self.after_dense(x)))
        return features
