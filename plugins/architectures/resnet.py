"""Residual networks as in SN-GAN (Miyato et al. 2018, appendix B.4) and BigGAN (Brock et al. 2019, appendix B)."""

from __future__ import annotations

from torch import Tensor, nn

from pggan_kit import PerStage, Resampling, Scores, Stage
from pggan_kit.components import BatchStatistic
from pggan_plugins.architectures.image_fade import ImageSpaceFade
from pggan_plugins.architectures.labels import Conditioning, LabelledLatents
from pggan_plugins.architectures.layers import (
    Layers,
    Residual,
    add_output_activation,
    check_layers,
    describe_batch_norm,
)
from pggan_plugins.architectures.widths import check_channels, choose_width

WIDTH_BASE = 8192
"""Numerator of the number of maps, as for `PGGAN`: see `choose_width`."""


class ResNet(ImageSpaceFade):
    """Pre-activation residual blocks: batch norm in G, spectral norm in D, a sum over pixels before the score.

    A block of G is normalise, activate, up, 3x3, normalise, activate, 3x3; one of D is activate, 3x3, activate, 3x3,
    down; beside each is a 1x1 with the same change of size. D judges the base stage's features after one more block
    that keeps their size. Growing adds the blocks of both papers one by one; the old paths of the fade are in image
    space.

    At alpha 0 a grown network computes what it computed before. In training, the estimate of spectral norm changes a
    little with each call, and so do D's scores.

    Args:
        channels: Number of maps of each stage's blocks; may be per stage. None: `min(8192 / 2^(level + 1), 512)` with
            the stage's index as level, as for `PGGAN`.
        generator_norm: Normalisation in G: `batch`, `pixel`, `layer` or `none`; see `layers.Layers`.
        discriminator_norm: Normalisation in D: `spectral`, `none`, `layer` or `batch`.
        activation: Activation in both networks: `relu` or `leaky_relu`.
        equalized_lr: Whether to scale weights at run time, not once when they are drawn.
        latent_norm: Whether to apply pixel norm to the latents.
        output: Output of G: `tanh` or `linear`.
        conditioning, label_size: Use of labels: see `labels.Conditioning`.

    Raises:
        ValueError: A value is out of range.
    """

    separates_batches = True

    def __init__(
        self,
        channels: PerStage[int] | None = None,
        generator_norm: str = "batch",
        discriminator_norm: str = "spectral",
        activation: str = "relu",
        equalized_lr: bool = False,
        latent_norm: bool = False,
        output: str = "tanh",
        conditioning: str = "none",
        label_size: int = 32,
    ) -> None:
        check_channels(channels)
        check_layers({"activation": activation}, generator_norm, discriminator_norm, output)

        # Both networks have one activation, and norms of their own.
        self.channels = channels
        self.generator_layers = Layers(activation, generator_norm, equalized_lr)
        self.discriminator_layers = Layers(activation, discriminator_norm, equalized_lr)
        self.latent_norm = latent_norm
        self.output = output
        self.conditioning = Conditioning(conditioning, label_size)
        self.conditional = conditioning != "none"

    def width(self, stage: Stage) -> int:
        """Return the number of maps of a stage's blocks."""
        return choose_width(stage, self.channels, WIDTH_BASE)

    def generator_stem(self, latent_size: int, stage: Stage) -> nn.Module:
        """Return a dense layer from latents to the base stage's features."""
        latents = self.conditioning.make_latents(latent_size, stage, self.latent_norm)
        return DenseStem(latents, self.width(stage), stage, self.generator_layers)

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """Return a residual block that makes its input larger."""
        old = self.width(previous)
        new = self.width(stage)
        layers = self.generator_layers
        branch = nn.Sequential(
            layers.norm_and_activation_before(old),
            layers.conv(old, new, resample=resampling.up(old, stage.factor), bias=layers.conv_has_bias),
            layers.norm_and_activation_before(new),
            layers.conv(new, new, gain=1.0, bias=layers.conv_has_bias),
        )

        # The papers go up and then mix channels. The other order is the same where up treats channels alike, and
        # cheaper by the square of the factor.
        mix = layers.conv(old, new, 1, gain=1.0, bias=layers.conv_has_bias)
        return Residual(branch, nn.Sequential(mix, resampling.up(new, stage.factor)))

    def to_image(self, stage: Stage) -> nn.Module:
        """Return the layers to images: normalise, activate, 3x3."""
        width = self.width(stage)
        layers = self.generator_layers
        conv = layers.conv(width, stage.image_channels, gain=1.0)
        return nn.Sequential(layers.norm_and_activation_before(width), add_output_activation(conv, self.output))

    def from_image(self, stage: Stage) -> nn.Module:
        """Return a linear 1x1 from images: the block behind it begins with an activation."""
        return self.discriminator_layers.conv(stage.image_channels, self.width(stage), 1, gain=1.0)

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """Return a residual block that makes its input smaller."""
        new = self.width(stage)
        old = self.width(previous)
        layers = self.discriminator_layers
        branch = nn.Sequential(
            layers.norm_and_activation_before(new),
            layers.conv(new, new, bias=layers.conv_has_bias),
            layers.norm_and_activation_before(new),
            layers.conv(new, old, gain=1.0, resample=layers.down(resampling, old, stage.factor)),
        )

        # Down first makes the 1x1 cheaper by the square of the factor.
        mix = layers.conv(new, old, 1, gain=1.0)
        return Residual(branch, nn.Sequential(layers.down(resampling, new, stage.factor), mix))

    def discriminator_head(self, stage: Stage) -> nn.Module:
        """Return D's head: a residual block, activation, sum over pixels, one score."""
        return SumHead(self.width(stage), stage, self.discriminator_layers, self.conditioning)

    def batch_statistics(self, stage: Stage, samples: int) -> list[BatchStatistic]:
        """Return the batch norm of either network.

        Raises:
            ValueError: A map of one pixel has batch norm, and there is only one sample.
        """
        return [
            *describe_batch_norm("generator", self.generator_layers, stage, samples),
            *describe_batch_norm("discriminator", self.discriminator_layers, stage, samples),
        ]


class DenseStem(nn.Module):
    """A dense layer from latents (N, Z) to the base stage's features."""

    def __init__(self, latents: LabelledLatents, channels: int, stage: Stage, layers: Layers) -> None:
        super().__init__()
        self.shape = (channels, stage.height, stage.width)
        self.latents = latents
        self.dense = layers.dense(latents.size, channels * stage.height * stage.width, gain=1.0)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map latents (N, Z) and labels (N,) | None to features (N, C, h, w)."""
        features: Tensor = self.dense(self.latents(latents, labels)).view(-1, *self.shape)
        return features


class SumHead(nn.Module):
    """D's head: from the base stage's features to a score, through their sum over pixels."""

    def __init__(self, channels: int, stage: Stage, layers: Layers, conditioning: Conditioning) -> None:
        super().__init__()
        branch = nn.Sequential(
            layers.norm_and_activation_before(channels),
            layers.conv(channels, channels, bias=layers.conv_has_bias),
            layers.norm_and_activation_before(channels),
            layers.conv(channels, channels, gain=1.0),
        )
        self.block = Residual(branch, nn.Identity())

        # The sum over pixels lies between the activation and the score.
        self.activation = layers.activation()
        self.score = layers.dense(channels, 1, gain=1.0)
        self.labels = conditioning.make_scores(channels, stage, layers.dense)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Scores:
        """Map features (N, C, h, w) and labels (N,) | None to Scores."""
        x = self.activation(self.block(x)).sum((2, 3))
        scores: Scores = self.labels(self.score(x).squeeze(1), x, labels)
        return scores
