"""The networks of Morvan Zhou's tutorial (mnistGANs, `pggan.py`), whose fade works on features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pggan_kit import (
    NearestUpsample,
    PerStage,
    Resampling,
    Scores,
    Stage,
    at_height,
    check_at_least,
    check_between,
    check_choice,
)
from pggan_kit.components import BatchStatistic
from pggan_plugins.architectures.image_fade import LargerImage, SmallerImage
from pggan_plugins.architectures.layers import ALONE

GENERATOR_CHANNELS: Mapping[int, int] = {1: 128, 14: 32, 28: 16}
DISCRIMINATOR_CHANNELS: Mapping[int, int] = {1: 64, 14: 32, 28: 1}

MOMENTUM = 0.01
"""Momentum of batch normalisation as torch counts it: Keras' default of 0.99."""

EPSILON = 1e-3
"""Number added to variances in batch normalisation, Keras' default."""

LEAK = 0.3
"""Slope of the leaky ReLU below 0, Keras' default."""

BRIDGES = ("features", "image")


class Tutorial:
    """Small networks with batch normalisation, strided 4x4 convolutions and tanh on both sides of the image.

    G: dense, then transposed convolutions. D: convolutions with dropout, then dense. Initial weights are Keras' (Glorot
    uniform, biases 0). At a growth factor f other than 2 the convolutions are 2f x 2f with stride f. Blocks resample by
    themselves, so `train.resampling` has no effect; labels are ignored.

    A batch normalisation follows the dense layer, so it normalises each output separately. Its running variance is the
    unbiased one (torch; Keras keeps the biased one after a dense layer): for a batch of 64 the variance in that one
    layer is larger by 1/63, which changes images of the averaged G slightly, and training not at all.

    Args:
        generator_channels: Number of maps of G's stages; may be per stage.
        discriminator_channels: Number of maps that D makes of a stage's images, and of the next larger stage's
            features; may be per stage.
        dropout: Share of D's features that each block drops, in [0, 1).
        bridge: Old path of the fade. `features` is the tutorial's: G's old path projects the old features for the *new*
            to-image, D's pools and projects the features of the *new* from-image, so growing changes what the networks
            compute. `image` is the paper's: the old layers on a smaller image, so that growing changes nothing at
            first.

    Attributes:
        preserves_function: Whether the bridge is `image`.
        conditional: Always False, since labels are ignored.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(
        self,
        generator_channels: PerStage[int] = GENERATOR_CHANNELS,
        discriminator_channels: PerStage[int] = DISCRIMINATOR_CHANNELS,
        dropout: float = 0.3,
        bridge: str = "features",
    ) -> None:
        check_at_least("generator_channels", generator_channels, 1)
        check_at_least("discriminator_channels", discriminator_channels, 1)
        check_between("dropout", dropout, 0, 1, high_included=False)
        check_choice("bridge", bridge, BRIDGES)

        self.generator_channels = generator_channels
        self.discriminator_channels = discriminator_channels
        self.dropout = dropout
        self.bridge = bridge

        # Blended images leave the output as it was; blended features do not.
        self.preserves_function = bridge == "image"
        self.conditional = False

    def generator_stem(self, latent_size: int, stage: Stage) -> nn.Module:
        """Return the layers from latents to the base stage's features: dense, batch norm, ReLU."""
        return Stem(latent_size, self._generator_width(stage), stage)

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """Return a block of G: transposed convolution, batch norm, ReLU."""
        old = self._generator_width(previous)
        new = self._generator_width(stage)
        conv = SameConvTranspose2d(old, new, 2 * stage.factor, stage.factor)
        return nn.Sequential(init_glorot(conv), make_batch_norm(new), nn.ReLU())

    def to_image(self, stage: Stage) -> nn.Module:
        """Return the layers to images: 1x1, tanh."""
        return nn.Sequential(make_pointwise(self._generator_width(stage), stage.image_channels), nn.Tanh())

    def generator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_to_image: nn.Module
    ) -> nn.Module:
        """Return G's old path: see `bridge`. Where the fade works on features, it drops the old to-image."""
        if self.bridge == "image":
            return LargerImage(old_to_image, resampling.up(stage.image_channels, stage.factor))
        return ProjectedFeatures(stage.factor, self._generator_width(previous), self._generator_width(stage))

    def from_image(self, stage: Stage) -> nn.Module:
        """Return the layers from images: 1x1, tanh."""
        return nn.Sequential(make_pointwise(stage.image_channels, self._discriminator_width(stage)), nn.Tanh())

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """Return a block of D: strided convolution, batch norm, leaky ReLU, dropout."""
        new = self._discriminator_width(stage)
        old = self._discriminator_width(previous)
        conv = SameConv2d(new, old, 2 * stage.factor, stage.factor)
        return nn.Sequential(init_glorot(conv), make_batch_norm(old), nn.LeakyReLU(LEAK), nn.Dropout(self.dropout))

    def discriminator_head(self, stage: Stage) -> nn.Module:
        """Return D's head: dense to one score."""
        return Head(self._discriminator_width(stage) * stage.height * stage.width)

    def discriminator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_from_image: nn.Module
    ) -> nn.Module:
        """Return D's old path: see `bridge`. Where the fade works on features, it drops the old from-image."""
        if self.bridge == "image":
            return SmallerImage(old_from_image, resampling.down(stage.image_channels, stage.factor))
        return PooledFeatures(stage.factor, self._discriminator_width(stage), self._discriminator_width(previous))

    def batch_statistics(self, stage: Stage, samples: int) -> list[BatchStatistic]:
        """Return the batch norm of G, and that of D, which has none at the base stage.

        Raises:
            ValueError: There is only one sample.
        """
        if samples == 1:
            raise ValueError(
                "architectures.Tutorial needs at least 2 samples in a call: the batch norm of G's dense layer sees "
                "a single value per sample and feature"
            )

        # D's blocks have batch norm, its head has none.
        statistics = [BatchStatistic("generator", "batch norm", samples, ALONE)]
        if stage.previous is not None:
            statistics.append(BatchStatistic("discriminator", "batch norm", samples, ALONE))
        return statistics

    def _generator_width(self, stage: Stage) -> int:
        return at_height(self.generator_channels, stage.height)

    def _discriminator_width(self, stage: Stage) -> int:
        return at_height(self.discriminator_channels, stage.height)


def init_glorot(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
    """Draw Keras' initial weights for a layer, and return the layer.

    Weights are uniform within `sqrt(6 / (fan-in + fan-out))`, with fans times the kernel's area (Glorot and Bengio
    2010); biases are 0. Keras and torch swap the two fans of a transposed convolution; their sum is the same.
    """
    nn.init.xavier_uniform_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def make_pointwise(in_channels: int, out_channels: int) -> nn.Module:
    """Return a 1x1 convolution."""
    return init_glorot(nn.Conv2d(in_channels, out_channels, 1))


def make_batch_norm(channels: int) -> nn.Module:
    """Return Keras' batch normalisation of maps."""
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)


def compute_same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding before and after that Keras' `same` adds, so that the output has ceil(size / stride) values.

    Of an odd number of zeros, one more goes after than before.
    """
    outputs = -(-size // stride)
    missing = max((outputs - 1) * stride + kernel - size, 0)
    before = missing // 2
    return before, missing - before


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad (N, C, h, w) with zeros as Keras' `same` does."""
    rows = compute_same_padding(x.shape[2], kernel, stride)
    columns = compute_same_padding(x.shape[3], kernel, stride)
    return F.pad(x, (*columns, *rows))


class SameConv2d(nn.Conv2d):
    """A convolution like Keras' Conv2D with `same` padding."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, h, w) to (N, out, ceil(h / stride), ceil(w / stride))."""
        x = pad_same(x, self.kernel_size[0], self.stride[0])
        return F.conv2d(x, self.weight, self.bias, self.stride)


class SameConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution like Keras' Conv2DTranspose with `same` padding.

    The kernel is at least as large as the stride.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (N, in, h, w) to (N, out, stride * h, stride * w)."""
        kernel = self.kernel_size[0]
        stride = self.stride[0]
        height = stride * x.shape[2]
        width = stride * x.shape[3]

        # Cut off what the convolution whose adjoint this is would pad.
        top, _ = compute_same_padding(height, kernel, stride)
        left, _ = compute_same_padding(width, kernel, stride)
        full = F.conv_transpose2d(x, self.weight, self.bias, self.stride)
        return full[:, :, top : top + height, left : left + width]


def pool_average_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Average (N, C, h, w) to (N, C, ceil(h / stride), ceil(w / stride)), as Keras' AveragePooling2D does with `same`.

    The padding does not count in the averages.
    """
    sums = F.avg_pool2d(pad_same(x, kernel, stride), kernel, stride, divisor_override=1)
    ones = torch.ones_like(x[:1, :1])
    counts = F.avg_pool2d(pad_same(ones, kernel, stride), kernel, stride, divisor_override=1)
    return sums / counts


class Stem(nn.Module):
    """The layers from latents (N, Z) to the base stage's features."""

    def __init__(self, latent_size: int, channels: int, stage: Stage) -> None:
        super().__init__()
        self.shape = (channels, stage.height, stage.width)
        outputs = channels * stage.height * stage.width
        self.dense = init_glorot(nn.Linear(latent_size, outputs))
        self.norm = nn.BatchNorm1d(outputs, eps=EPSILON, momentum=MOMENTUM)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map latents (N, Z) to features (N, C, h, w)."""
        return F.relu(self.norm(self.dense(latents))).view(-1, *self.shape)


class Head(nn.Module):
    """D's head, from the base stage's features to a score."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.dense = init_glorot(nn.Linear(inputs, 1))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Scores:
        """Map features (N, C, h, w) to Scores of (N,)."""
        return Scores(self.dense(x.flatten(1)).squeeze(1), labels=labels)


class ProjectedFeatures(nn.Module):
    """G's old path: `new_to_image(project(up(features)))`."""

    def __init__(self, factor: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = NearestUpsample(factor)
        self.project = make_pointwise(in_channels, out_channels)

    def forward(self, features: Tensor, new_to_image: nn.Module) -> Tensor:
        """Map features of the stage before to images of this one."""
        image: Tensor = new_to_image(self.project(self.up(features)))
        return image


class PooledFeatures(nn.Module):
    """D's old path: `project(average(new_from_image(images)))`, averages of 2f x 2f at every f-th place."""

    def __init__(self, factor: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.factor = factor
        self.project = make_pointwise(in_channels, out_channels)

    def forward(self, images: Tensor, new_features: Tensor, new_from_image: nn.Module) -> Tensor:
        """Map the new from-image's features of this stage to features of the stage before."""
        pooled = pool_average_same(new_features, 2 * self.factor, self.factor)
        features: Tensor = self.project(pooled)
        return features
