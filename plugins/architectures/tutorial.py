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
from pggan_plugins.architectures.layers import ALONE
from pggan_plugins.architectures.shared import LargerImage, SmallerImage

GENERATOR_CHANNELS: Mapping[int, int] = {1: 128, 14: 32, 28: 16}
DISCRIMINATOR_CHANNELS: Mapping[int, int] = {1: 64, 14: 32, 28: 1}
MOMENTUM, EPSILON = 0.01, 1e-3
"""Keras' defaults for batch normalisation; its momentum of 0.99 is torch's 0.01."""

LEAK = 0.3
BRIDGES = ("features", "image")


class Tutorial:
    """Small networks with batch normalisation, strided 4x4 convolutions and tanh on both sides of the image.

    G: dense, then transposed convolutions. D: convolutions with dropout, then dense. Initial weights are Keras' (Glorot
    uniform, biases 0). At a growth factor f other than 2 the convolutions are 2f x 2f with stride f. Blocks bring their
    own resampling, so `train.resampling` has no say; labels are ignored.

    A batch normalisation follows the dense layer, so it normalises each of its outputs for itself. Its running
    variance is the unbiased one (torch; Keras keeps the biased one after a dense layer): for a batch of 64, images of
    the averaged G differ by what a variance larger by 1/63 in that one layer does, and training not at all.

    Args:
        generator_channels: maps of G's stages; may be per stage.
        discriminator_channels: maps that D makes of a stage's images, and of the next larger stage's features.
        dropout: share of D's features that each block drops, in [0, 1).
        bridge: `features` is the tutorial's fade: G's old path projects the old features for the *new* to-image, D's
            pools and projects the *new* from-image's features, so growing changes what the networks compute.
            `image` is the paper's: the old layers on a smaller image, so that growing changes nothing at first.

    Attributes:
        preserves_function: whether the bridge is `image`.

    Raises:
        ValueError: a value out of range.
    """

    conditional = False

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
        self.preserves_function = bridge == "image"
        self.conditional = False

    def generator_stem(self, latent_size: int, stage: Stage) -> nn.Module:
        """Dense, batch norm, ReLU."""
        return Stem(latent_size, self._g(stage), stage)

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """Transposed convolution, batch norm, ReLU."""
        conv = SameConvTranspose2d(self._g(previous), self._g(stage), 2 * stage.factor, stage.factor)
        return nn.Sequential(glorot(conv), batch_norm(self._g(stage)), nn.ReLU())

    def to_image(self, stage: Stage) -> nn.Module:
        """1x1, tanh."""
        return nn.Sequential(pointwise(self._g(stage), stage.image_channels), nn.Tanh())

    def generator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_to_image: nn.Module
    ) -> nn.Module:
        """See `bridge`; the old to-image goes where the fade works on features."""
        if self.bridge == "image":
            return LargerImage(old_to_image, resampling.up(stage.image_channels, stage.factor))
        return ProjectedFeatures(stage.factor, self._g(previous), self._g(stage))

    def from_image(self, stage: Stage) -> nn.Module:
        """1x1, tanh."""
        return nn.Sequential(pointwise(stage.image_channels, self._d(stage)), nn.Tanh())

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """Strided convolution, batch norm, leaky ReLU, dropout."""
        conv = SameConv2d(self._d(stage), self._d(previous), 2 * stage.factor, stage.factor)
        norm = batch_norm(self._d(previous))
        return nn.Sequential(glorot(conv), norm, nn.LeakyReLU(LEAK), nn.Dropout(self.dropout))

    def discriminator_head(self, stage: Stage) -> nn.Module:
        """Dense to one score."""
        return Head(self._d(stage) * stage.height * stage.width)

    def batch_statistics(self, stage: Stage, samples: int) -> list[BatchStatistic]:
        """Return G's batch norm, and D's, which the base stage has not.

        Raises:
            ValueError: there is one sample.
        """
        if samples == 1:
            raise ValueError(
                "architectures.Tutorial needs at least 2 samples in a call: the batch norm of G's dense layer has one "
                "value a sample"
            )
        nets = ("generator",) if stage.previous is None else ("generator", "discriminator")
        return [BatchStatistic(net, "batch norm", samples, ALONE) for net in nets]

    def discriminator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_from_image: nn.Module
    ) -> nn.Module:
        """See `bridge`; the old from-image goes where the fade works on features."""
        if self.bridge == "image":
            return SmallerImage(old_from_image, resampling.down(stage.image_channels, stage.factor))
        return PooledFeatures(stage.factor, self._d(stage), self._d(previous))

    def _g(self, stage: Stage) -> int:
        return at_height(self.generator_channels, stage.height)

    def _d(self, stage: Stage) -> int:
        return at_height(self.discriminator_channels, stage.height)


def glorot(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
    """Keras' initial weights: uniform within `sqrt(6 / (fan-in + fan-out))` (Glorot and Bengio 2010), fans times the
    kernel's area; biases 0.

    Keras and torch swap the two fans of a transposed convolution; their sum is the same.
    """
    nn.init.xavier_uniform_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def pointwise(in_channels: int, out_channels: int) -> nn.Module:
    """A 1x1 convolution."""
    return glorot(nn.Conv2d(in_channels, out_channels, 1))


def batch_norm(channels: int) -> nn.Module:
    """Keras' batch normalisation of maps."""
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """What Keras' `same` pads before and after, so that ceil(size / stride) values come out; the odd one goes after."""
    missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return missing // 2, missing - missing // 2


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """(N, C, h, w), padded with zeros as Keras' `same` pads it."""
    return F.pad(x, (*same_padding(x.shape[3], kernel, stride), *same_padding(x.shape[2], kernel, stride)))


class SameConv2d(nn.Conv2d):
    """Keras' Conv2D with `same` padding."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, ceil(h / stride), ceil(w / stride))."""
        x = pad_same(x, self.kernel_size[0], self.stride[0])
        return F.conv2d(x, self.weight, self.bias, self.stride)


class SameConvTranspose2d(nn.ConvTranspose2d):
    """Keras' Conv2DTranspose with `same` padding, for a kernel at least as large as the stride."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, in, h, w) -> (N, out, stride * h, stride * w)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = stride * x.shape[2], stride * x.shape[3]
        top, left = same_padding(height, kernel, stride)[0], same_padding(width, kernel, stride)[0]
        full = F.conv_transpose2d(x, self.weight, self.bias, self.stride)
        return full[:, :, top : top + height, left : left + width]


def same_average(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Keras' AveragePooling2D with `same` padding, which does not count in the averages.

    (N, C, h, w) -> (N, C, ceil(h / stride), ceil(w / stride)).
    """
    sums = F.avg_pool2d(pad_same(x, kernel, stride), kernel, stride, divisor_override=1)
    counts = F.avg_pool2d(pad_same(torch.ones_like(x[:1, :1]), kernel, stride), kernel, stride, divisor_override=1)
    return sums / counts


class Stem(nn.Module):
    """Latents (N, Z) to the base size."""

    def __init__(self, latent_size: int, channels: int, stage: Stage) -> None:
        super().__init__()
        self.shape = (channels, stage.height, stage.width)
        outputs = channels * stage.height * stage.width
        self.dense = glorot(nn.Linear(latent_size, outputs))
        self.norm = nn.BatchNorm1d(outputs, eps=EPSILON, momentum=MOMENTUM)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """(N, Z) -> (N, C, h, w)."""
        return F.relu(self.norm(self.dense(latents))).view(-1, *self.shape)


class Head(nn.Module):
    """The base stage's features to a score."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.dense = glorot(nn.Linear(inputs, 1))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Scores:
        """(N, C, h, w) -> Scores of (N,)."""
        return Scores(self.dense(x.flatten(1)).squeeze(1), labels=labels)


class ProjectedFeatures(nn.Module):
    """G's old path: `new_to_image(project(up(features)))`."""

    def __init__(self, factor: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = NearestUpsample(factor)
        self.project = pointwise(in_channels, out_channels)

    def forward(self, features: Tensor, new_to_image: nn.Module) -> Tensor:
        """Features of the stage before -> images of this one."""
        image: Tensor = new_to_image(self.project(self.up(features)))
        return image


class PooledFeatures(nn.Module):
    """D's old path: `project(average(new_from_image(images)))`, averages of 2f x 2f at every f-th place."""

    def __init__(self, factor: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.factor = factor
        self.project = pointwise(in_channels, out_channels)

    def forward(self, images: Tensor, new_features: Tensor, new_from_image: nn.Module) -> Tensor:
        """Images of this stage -> features of the stage before."""
        features: Tensor = self.project(same_average(new_features, 2 * self.factor, self.factor))
        return features
