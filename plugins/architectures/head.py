"""The heads of a discriminator and of an encoder, from the base stage's features to a score or to codes."""

from __future__ import annotations

from torch import Tensor, nn

from pggan_kit import Scores, Stage
from pggan_plugins.architectures.labels import Conditioning
from pggan_plugins.architectures.layers import Layers
from pggan_plugins.architectures.minibatch import MinibatchDiscrimination, MinibatchStddev, NeighbourStddev


class Head(nn.Module):
    """D's head: minibatch statistic, 3x3, full-size convolution, dense (Karras et al. 2018, table 2).

    Args:
        channels: Number of maps of the features, and of all layers of the head.
        stage: The base stage.
        layers: Layers of D.
        conditioning: Conditioning of the architecture.
        minibatch: Statistic of the batch: `stddev`, `neighbour_stddev`, `discrimination` (before the last layer) or
            `none`.
        stddev_group: Group of `stddev` and of `neighbour_stddev`: see `MinibatchStddev` and `NeighbourStddev`.
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
        # The stddev is one more map for the 3x3.
        self.stddev: nn.Module | None = None
        if minibatch == "stddev":
            self.stddev = MinibatchStddev(stddev_group)
        elif minibatch == "neighbour_stddev":
            self.stddev = NeighbourStddev(stddev_group)
        conv_channels = channels
        if self.stddev is not None:
            conv_channels += 1
        self.conv = layers.conv(conv_channels, channels, bias=layers.conv_has_bias)
        self.after_conv = layers.norm_and_activation_after(channels)

        # A convolution as large as its input is a dense layer.
        self.dense = layers.dense(channels * stage.height * stage.width, channels, bias=layers.conv_has_bias)
        self.after_dense = layers.norm_and_activation_after(channels, flat=True)

        # The discrimination adds features for the score and the class logits.
        self.discrimination = None
        score_features = channels
        if minibatch == "discrimination":
            self.discrimination = MinibatchDiscrimination(
                channels, lambda inputs, outputs: layers.dense(inputs, outputs, gain=1.0, bias=False)
            )
            score_features += self.discrimination.kernels
        self.score = layers.dense(score_features, 1, gain=1.0)
        self.labels = conditioning.make_scores(score_features, stage, layers.dense)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Scores:
        """Map features (N, C, h, w) and labels (N,) | None to Scores."""
        if self.stddev is not None:
            x = self.stddev(x)
        x = self.after_conv(self.conv(x))

        # Pixel by pixel, as channels_last stores them: this copies nothing, and gradients keep the features' layout.
        x = self.after_dense(self.dense(x.permute(0, 2, 3, 1).flatten(1)))
        if self.discrimination is not None:
            x = self.discrimination(x)

        scores: Scores = self.labels(self.score(x).squeeze(1), x, labels)
        return scores


class EncoderHead(nn.Module):
    """An encoder's head: like D's without a statistic of the batch, and with codes in the place of a score.

    Args:
        channels: Number of maps of the features, and of all layers of the head but the last.
        stage: The base stage.
        layers: Layers of D.
        codes: Number of codes of a sample, K.
    """

    def __init__(self, channels: int, stage: Stage, layers: Layers, codes: int) -> None:
        super().__init__()
        self.conv = layers.conv(channels, channels, bias=layers.conv_has_bias)
        self.after_conv = layers.norm_and_activation_after(channels)
        self.dense = layers.dense(channels * stage.height * stage.width, channels, bias=layers.conv_has_bias)
        self.after_dense = layers.norm_and_activation_after(channels, flat=True)
        self.codes = layers.dense(channels, codes, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, C, h, w) to codes (N, K)."""
        x = self.after_conv(self.conv(x))
        # Pixel by pixel, as in `Head`.
        x = self.after_dense(self.dense(x.permute(0, 2, 3, 1).flatten(1)))
        codes: Tensor = self.codes(x)
        return codes
