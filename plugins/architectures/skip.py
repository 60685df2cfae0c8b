"""PGGAN whose new blocks begin without effect, so that growing changes neither network's function, even at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pggan_kit import PerStage, Resampling, Scores, Stage
from pggan_plugins.architectures.layers import EqualizedConv2d, to_image_layer
from pggan_plugins.architectures.pggan import PGGAN


class Features(NamedTuple):
    """What G's blocks hand on: maps (N, C, h, w), and the image (N, image channels, h, w) summed over the stages."""

    maps: Tensor
    image: Tensor


class SkipPGGAN(PGGAN):
    """PGGAN, with layers to and from the image at every stage (Karras et al. 2020, figure 7b).

    G's image is that of the stage before, made larger, plus the new stage's own. D adds what it sees in the image, made
    smaller, to what a block hands on. PGGAN is the case in which only the newest of these layers count.

    Two convolutions of a new stage start at zero: G's to the image, and the last one of D's block. So after a hard
    switch G's images are those of before, enlarged by `train.resampling`, and D's scores those of before of images made
    smaller by it. In a fade alpha multiplies what the new stage adds, as long as `train.image_resampling` is alike.

    D has no normalisation, and leaky ReLUs: zero weights have no singular value to be divided by, other norms would
    blow up what they give after one step, and ReLU would keep them at zero.

    Args:
        channels, output, stddev_group, conditioning, label_size: as for `PGGAN`. `tanh` is taken of the sum.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self,
        channels: PerStage[int] | None = None,
        output: str = "linear",
        stddev_group: int = 4,
        conditioning: str = "none",
        label_size: int = 32,
    ) -> None:
        super().__init__(
            channels, output=output, stddev_group=stddev_group, conditioning=conditioning, label_size=label_size
        )

    def generator_stem(self, latent_size: int, stage: Stage) -> nn.Module:
        """PGGAN's, and the first image."""
        return Stem(super().generator_stem(latent_size, stage), self._own_image(stage))

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """PGGAN's, and what is added to the image: at first nothing."""
        block, own = super().generator_block(previous, stage, resampling), self._own_image(stage)
        start_at_zero(own)
        return Block(block, own, resampling.up(stage.image_channels, stage.factor))

    def _own_image(self, stage: Stage) -> nn.Module:
        return self.generator_layers.conv(self.width(stage), stage.image_channels, 1, gain=1.0)

    def to_image(self, stage: Stage) -> nn.Module:
        """The image summed so far: the blocks own the layers that make it."""
        return to_image_layer(SummedImage(), self.output)

    def from_image(self, stage: Stage) -> nn.Module:
        """The image, then maps of zeros: the blocks own the layers that read it. One tensor, for the fade to blend."""
        return nn.ZeroPad3d((0, 0, 0, 0, 0, self.width(stage)))

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """PGGAN's, which at first gives zeros; beside it the image, down."""
        block = super().discriminator_block(stage, previous, resampling)
        start_at_zero(block)
        return DiscriminatorBlock(self._entry(stage), block, resampling.down(stage.image_channels, stage.factor))

    def discriminator_head(self, stage: Stage) -> nn.Module:
        """PGGAN's."""
        return SkipHead(self._entry(stage), super().discriminator_head(stage))

    def _entry(self, stage: Stage) -> Entry:
        return Entry(super().from_image(stage), stage.image_channels)


def start_at_zero(module: nn.Module) -> None:
    """Set the weight of the last convolution in it to 0; its bias is."""
    last = [layer for layer in module.modules() if isinstance(layer, EqualizedConv2d)][-1]
    nn.init.zeros_(last.weight)


class Stem(nn.Module):
    """G's stem, and the layer to the first image."""

    def __init__(self, stem: nn.Module, own: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.own = own

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Features:
        """(N, Z), (N,) | None -> Features of the base stage."""
        maps = self.stem(latents, labels)
        return Features(maps, self.own(maps))


class Block(nn.Module):
    """A block of G, and the layer to what it adds to the image."""

    def __init__(self, block: nn.Module, own: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.own = own
        self.up = up

    def forward(self, features: Features) -> Features:
        """Features of the stage before -> Features of this one."""
        maps = self.block(features.maps)
        return Features(maps, self.up(features.image) + self.own(maps))


class SummedImage(nn.Module):
    """Features -> their image."""

    def forward(self, features: Features) -> Tensor:
        """Features -> (N, image channels, h, w)."""
        return features.image


class Entry(nn.Module):
    """D's layer from the image, added to the maps that came with it."""

    def __init__(self, layer: nn.Module, image_channels: int) -> None:
        super().__init__()
        self.layer = layer
        self.image_channels = image_channels

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, image channels + C, h, w) -> the image, maps (N, C, h, w)."""
        image, maps = features.tensor_split([self.image_channels], dim=1)
        seen = self.layer(image)
        # In the layer's type, which autocast may have lowered: beside the image the maps have that of the image.
        return image, seen + maps.to(seen.dtype)


class DiscriminatorBlock(nn.Module):
    """A block of D, and the image beside it."""

    def __init__(self, entry: Entry, block: nn.Module, down: nn.Module) -> None:
        super().__init__()
        self.entry = entry
        self.block = block
        self.down = down

    def forward(self, features: Tensor) -> Tensor:
        """(N, image channels + C, h, w) -> (N, image channels + C', h / factor, w / factor)."""
        image, maps = self.entry(features)
        return torch.cat([self.down(image), self.block(maps)], dim=1)


class SkipHead(nn.Module):
    """D's head."""

    def __init__(self, entry: Entry, head: nn.Module) -> None:
        super().__init__()
        self.entry = entry
        self.head = head

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Scores:
        """(N, image channels + C, h, w), (N,) | None -> Scores."""
        scores: Scores = self.head(self.entry(features)[1], labels)
        return scores
