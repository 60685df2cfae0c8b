"""Pieces that several architectures have in common: widths, D's head, and bridges in image space."""

from __future__ import annotations

from torch import Tensor, nn

from pggan_kit import PerStage, Resampling, Scores, Stage, check_at_least, values_per_stage
from pggan_plugins.architectures.labels import Conditioning
from pggan_plugins.architectures.layers import Layers
from pggan_plugins.architectures.minibatch import MinibatchDiscrimination, MinibatchStddev

MOST_CHANNELS = 512


def check_channels(channels: PerStage[int] | None) -> None:
    """Check a number of maps, which may be per stage.

    Raises:
        SettingError: one below 1.
    """
    check_at_least("channels", channels, 1)


def width_at(stage: Stage, channels: PerStage[int] | None, base: int) -> int:
    """Maps of a stage's blocks: those given, else `min(base / 2^(index + 1), 512)` and at least 1.

    Raises:
        ValueError: none is given for this stage.
    """
    if channels is None:
        return max(1, min(base // 2 ** (stage.index + 1), MOST_CHANNELS))
    return values_per_stage("channels", channels, [(stage.height, stage.width)])[0]


class Head(nn.Module):
    """The base stage's features to a score: minibatch statistic, 3x3, full-size convolution, dense (Karras et al.
    2018, table 2).

    Args:
        channels: of the features, and of all layers here.
        stage: the base stage.
        layers: D's.
        conditioning: of the architecture.
        minibatch: `stddev`, `discrimination` (before the last layer) or `none`.
        stddev_group: see `MinibatchStddev`.
    """

    def __init__(
        self,
        channels: int,
        stage: Stage,
        layers: Layers,
        conditioning: Conditioning,
        minibatch: str = "stddev",
        stddev_group: int = 4,
    ) -> None:
        super().__init__()
        self.stddev = MinibatchStddev(stddev_group) if minibatch == "stddev" else None
        self.conv = layers.conv(channels + (1 if minibatch == "stddev" else 0), channels, bias=layers.biased)
        self.after_conv = layers.after(channels)
        # A convolution as large as its input is a dense layer.
        self.dense = layers.dense(channels * stage.height * stage.width, channels, bias=layers.biased)
        self.after_dense = layers.after(channels, flat=True)
        self.discrimination = None
        if minibatch == "discrimination":
            self.discrimination = MinibatchDiscrimination(
                channels, lambda inputs, outputs: layers.dense(inputs, outputs, gain=1.0, bias=False)
            )
        known = channels + (self.discrimination.kernels if self.discrimination is not None else 0)
        self.score = layers.dense(known, 1, gain=1.0)
        self.labels = conditioning.scores(known, stage, layers.dense)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Scores:
        """(N, C, h, w), (N,) | None -> Scores."""
        if self.stddev is not None:
            x = self.stddev(x)
        x = self.after_conv(self.conv(x))
        # Pixel by pixel, as channels_last has them in memory: no copy then, and gradients in the features' layout.
        x = self.after_dense(self.dense(x.permute(0, 2, 3, 1).flatten(1)))
        if self.discrimination is not None:
            x = self.discrimination(x)
        scores: Scores = self.labels(self.score(x).squeeze(1), x, labels)
        return scores


class ImageSpaceFade:
    """The paper's fade, for architectures to inherit: the old path is the old layer on an image made larger (in G) or
    smaller (in D), so that at alpha 0 a grown network computes what it computed before (section 2, figure 2)."""

    preserves_function = True

    def generator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_to_image: nn.Module
    ) -> nn.Module:
        """The image of before, made larger."""
        return LargerImage(old_to_image, resampling.up(stage.image_channels, stage.factor))

    def discriminator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_from_image: nn.Module
    ) -> nn.Module:
        """What was seen before, of a smaller image."""
        return SmallerImage(old_from_image, resampling.down(stage.image_channels, stage.factor))


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
