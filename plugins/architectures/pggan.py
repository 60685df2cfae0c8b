"""The networks of Karras et al. 2018 (table 2), at any base size, growth factor and image shape."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pggan_kit import PerStage, Resampling, Stage, check_at_least, check_between, check_choice
from pggan_kit.components import BatchStatistic
from pggan_plugins.architectures.head import EncoderHead, Head
from pggan_plugins.architectures.image_fade import ImageSpaceFade
from pggan_plugins.architectures.labels import Conditioning, LabelledLatents
from pggan_plugins.architectures.layers import (
    LEAK,
    OUTPUTS,
    Layers,
    add_output_activation,
    check_layers,
    describe_batch_norm,
)
from pggan_plugins.architectures.minibatch import MINIBATCH, describe_minibatch
from pggan_plugins.architectures.widths import check_channels, choose_width

POOLS = ("after_activation", "before_activation")

PGGAN_OUTPUTS = (*OUTPUTS, "tanh_after_fade")

STEM_BIASES = ("map", "pixel")

WIDTH_BASE = 8192
"""Numerator of the paper's number of maps: see `choose_width`."""


class PGGAN(ImageSpaceFade):
    """Progressive growing as published: equalized learning rate, pixel norm in G, minibatch stddev in D.

    The other options are those of the paper's ablation (table 1), and common ones of the field.

    Args:
        channels: Number of maps of each stage's blocks; may be per stage. None: the paper's,
            `min(8192 / 2^(level + 1), 512)` with the stage's index as level.
        generator_norm: Normalisation with each 3x3 convolution of G: `pixel`, `batch`, `layer` or `none`; see
            `layers.Layers`.
        discriminator_norm: Normalisation in D: `none`, `layer`, `spectral` or `batch`; `spectral` in all layers, the
            others with each 3x3 and full-size convolution.
        generator_activation, discriminator_activation: `leaky_relu` or `relu`.
        leak: Slope of the leaky ReLU below 0, in [0, 1).
        equalized_lr: Whether to scale weights at run time (section 4.1), not once when they are drawn.
        latent_norm: Whether to apply pixel norm to the latents.
        output: Output of G: `linear`; `tanh`, of both paths of a fade; or `tanh_after_fade`, of their blend. The last
            is the same without a fade, and keeps the function of a network that grows only where images are made larger
            by repetition.
        stem_bias: Biases of G's first layer: one for each `map`, as in the released code, or one for each `pixel` of
            each map.
        minibatch: Statistic of the batch in D: `stddev`, `neighbour_stddev` (unbiased, over samples that follow each
            other), `discrimination` (100 kernels of size 5) or `none`.
        stddev_group: Largest group of `stddev`, and the group of `neighbour_stddev`.
        pool: Order in D: `after_activation` is the paper's (convolve, activate, average); `before_activation`
            averages first, which lets the resampling fuse the average into the convolution.
        conditioning, label_size: Use of labels: see `labels.Conditioning`.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(
        self,
        channels: PerStage[int] | None = None,
        generator_norm: str = "pixel",
        discriminator_norm: str = "none",
        generator_activation: str = "leaky_relu",
        discriminator_activation: str = "leaky_relu",
        leak: float = LEAK,
        equalized_lr: bool = True,
        latent_norm: bool = True,
        output: str = "linear",
        stem_bias: str = "map",
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
        check_layers(activations, generator_norm, discriminator_norm)
        check_choice("output", output, PGGAN_OUTPUTS)
        check_between("leak", leak, 0, 1, high_included=False)
        check_choice("stem_bias", stem_bias, STEM_BIASES)
        check_choice("minibatch", minibatch, MINIBATCH)
        check_at_least("stddev_group", stddev_group, 1)
        check_choice("pool", pool, POOLS)

        # Each network's layers have their activation, normalisation and scaling of weights in common.
        self.channels = channels
        self.generator_layers = Layers(generator_activation, generator_norm, equalized_lr, leak)
        self.discriminator_layers = Layers(discriminator_activation, discriminator_norm, equalized_lr, leak)
        self.latent_norm = latent_norm
        self.output = output
        self.stem_bias = stem_bias
        self.minibatch = minibatch
        self.stddev_group = stddev_group
        self.pool_first = pool == "before_activation"
        self.conditioning = Conditioning(conditioning, label_size)
        self.conditional = conditioning != "none"

        # Discrimination compares a sample with all of a call, the samples of other batches included.
        self.separates_batches = minibatch != "discrimination"

    def width(self, stage: Stage) -> int:
        """Return the number of maps of a stage's blocks."""
        return choose_width(stage, self.channels, WIDTH_BASE)

    def generator_stem(self, latent_size: int, stage: Stage) -> nn.Module:
        """Return the layers from latents to the base stage's features."""
        latents = self.conditioning.make_latents(latent_size, stage, self.latent_norm)
        return Stem(latents, self.width(stage), stage, self.generator_layers, self.stem_bias)

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """Return a block of G: up, 3x3, 3x3."""
        old = self.width(previous)
        new = self.width(stage)
        layers = self.generator_layers
        up = resampling.up(old, stage.factor)
        return nn.Sequential(
            layers.conv(old, new, resample=up, bias=layers.conv_has_bias),
            layers.norm_and_activation_after(new),
            layers.conv(new, new, bias=layers.conv_has_bias),
            layers.norm_and_activation_after(new),
        )

    def to_image(self, stage: Stage) -> nn.Module:
        """Return a 1x1 to images, with the output's activation."""
        conv = self.generator_layers.conv(self.width(stage), stage.image_channels, 1, gain=1.0)
        return add_output_activation(conv, self.output)

    def finish_images(self, images: Tensor) -> Tensor:
        """Return images, or blended ones of a fade, with the output's activation where it comes behind the blend."""
        if self.output == "tanh_after_fade":
            return images.tanh()
        return images

    def from_image(self, stage: Stage) -> nn.Module:
        """Return a 1x1 from images and its activation."""
        layers = self.discriminator_layers
        conv = layers.conv(stage.image_channels, self.width(stage), 1)
        return nn.Sequential(conv, layers.activation(inplace=True))

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """Return a block of D: 3x3, 3x3, down."""
        new = self.width(stage)
        old = self.width(previous)
        layers = self.discriminator_layers
        down = layers.down(resampling, old, stage.factor)
        first = [
            layers.conv(new, new, bias=layers.conv_has_bias),
            layers.norm_and_activation_after(new),
        ]

        # The average is fused into the second convolution, or follows its activation.
        if self.pool_first:
            conv = layers.conv(new, old, resample=down, bias=layers.conv_has_bias)
            return nn.Sequential(*first, conv, layers.norm_and_activation_after(old))
        conv = layers.conv(new, old, bias=layers.conv_has_bias)
        return nn.Sequential(*first, conv, layers.norm_and_activation_after(old), down)

    def discriminator_head(self, stage: Stage) -> nn.Module:
        """Return D's head: minibatch statistic, 3x3, full-size convolution, one score."""
        layers = self.discriminator_layers
        return Head(self.width(stage), stage, layers, self.conditioning, self.minibatch, self.stddev_group)

    def encoder_head(self, stage: Stage, latent_size: int) -> nn.Module:
        """Return an encoder's head: 3x3, full-size convolution, and latents from a dense layer."""
        return EncoderHead(self.width(stage), stage, self.discriminator_layers, latent_size)

    def batch_statistics(self, stage: Stage, samples: int) -> list[BatchStatistic]:
        """Return the batch norm of each network, and D's statistic of the batch.

        Raises:
            ValueError: The dense layer of D and of an encoder, or a map of one pixel, has batch norm, and there is only
                one sample.
        """
        if samples == 1 and self.discriminator_layers.norm == "batch":
            raise ValueError(
                "discriminator_norm = 'batch' needs at least 2 samples in a call: after a dense layer each sample "
                "has a single value per feature"
            )

        return [
            *describe_batch_norm("generator", self.generator_layers, stage, samples),
            *describe_batch_norm("discriminator", self.discriminator_layers, stage, samples),
            *describe_batch_norm("encoder", self.discriminator_layers, stage, samples),
            *describe_minibatch(self.minibatch, self.stddev_group, samples),
        ]


class Stem(nn.Module):
    """The layers from latents (N, Z) to the base stage's features: dense, 3x3.

    Args:
        latents: Module that makes the input.
        channels: Number of maps.
        stage: The base stage.
        layers: Layers of G.
        bias: Biases of the dense layer: one for each `map`, or for each `pixel` of each.
    """

    def __init__(
        self, latents: LabelledLatents, channels: int, stage: Stage, layers: Layers, bias: str = "map"
    ) -> None:
        super().__init__()
        self.shape = (channels, stage.height, stage.width)
        self.latents = latents

        # The gain is sqrt(2) / 4 at the paper's 4x4, as in the released code, which sees the layer as a full-size
        # convolution. So it has one bias for each map.
        pixels = stage.height * stage.width
        self.dense = layers.dense(latents.size, channels * pixels, gain=math.sqrt(2 / pixels), bias=False)
        bias_shape = (channels, 1, 1) if bias == "map" else self.shape
        self.bias = nn.Parameter(torch.zeros(bias_shape)) if layers.conv_has_bias else None
        self.after_dense = layers.norm_and_activation_after(channels)

        self.conv = layers.conv(channels, channels, bias=layers.conv_has_bias)
        self.after_conv = layers.norm_and_activation_after(channels)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map latents (N, Z) and labels (N,) | None to features (N, C, h, w)."""
        x = self.dense(self.latents(latents, labels)).view(-1, *self.shape)
        if self.bias is not None:
            x = x + self.bias
        features: Tensor = self.after_conv(self.conv(self.after_dense(x)))
        return features
