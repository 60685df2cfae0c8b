"""PGGAN whose new blocks have no effect at first, so that even a hard switch changes neither network's function."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pggan_kit import PerStage, Resampling, Scores, Stage
from pggan_plugins.architectures.layers import EqualizedConv2d, SummedImage, add_output_activation
from pggan_plugins.architectures.pggan import PGGAN


class Features(NamedTuple):
    """The features that G's blocks pass on.

    Attributes:
        maps: (N, C, h, w).
        image: (N, image channels, h, w), summed over the stages so far.
    """

    maps: Tensor
    image: Tensor


class SkipPGGAN(PGGAN):
    """PGGAN with layers to and from the image at every stage (Karras et al. 2020, figure 7b).

    G's image is that of the stage before, made larger, plus the new stage's own. At each stage D reads the image, made
    smaller, and adds the result to the output of the block before. PGGAN is the case in which only the newest of these
    layers count.

    Two convolutions of a new stage start at zero: G's to the image, and the last one of D's block. So after a hard
    switch G gives the images of before, enlarged by `train.resampling`, and D gives the scores of before to images
    reduced by it. In a fade alpha multiplies what the new stage adds, as long as `train.image_resampling` is the same.
    With `output = 'tanh'` a hard switch changes G's images unless enlarging repeats pixels, as `Nearest` does: `tanh`
    of what `Bilinear` and `Blur` interpolate is not what they interpolate of `tanh`.

    D has no normalisation, and leaky ReLUs: zero weights have no singular value to divide by, other norms would amplify
    the outputs of these layers after the first step, and ReLU would keep them at zero.

    Args:
        channels, output, stddev_group, conditioning, label_size: Options of `PGGAN`. `tanh` is applied to the sum.

    Raises:
        ValueError: A value is out of range.
    """

    images_at_each_stage = True

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
        """Return PGGAN's stem, with a layer to the first image."""
        stem = super().generator_stem(latent_size, stage)
        return Stem(stem, self._make_own_image(stage))

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """Return PGGAN's block, with a layer to the image that adds nothing at first."""
        block = super().generator_block(previous, stage, resampling)
        own = self._make_own_image(stage)
        zero_last_convolution(own)
        return Block(block, own, resampling.up(stage.image_channels, stage.factor))

    def _make_own_image(self, stage: Stage) -> nn.Module:
        return self.generator_layers.conv(self.width(stage), stage.image_channels, 1, gain=1.0)

    def to_image(self, stage: Stage) -> nn.Module:
        """Return a module that reads the image summed so far: the layers to images belong to the blocks."""
        return add_output_activation(SummedImage(), self.output)

    def from_image(self, stage: Stage) -> nn.Module:
        """Return a module that appends maps of zeros to the image: the layers from images belong to the blocks.

        Image and maps are one tensor, so that the fade can blend it.
        """
        return nn.ZeroPad3d((0, 0, 0, 0, 0, self.width(stage)))

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """Return PGGAN's block, whose output is 0 at first, beside the image made smaller."""
        block = super().discriminator_block(stage, previous, resampling)
        zero_last_convolution(block)
        entry = self._make_entry(stage)
        return DiscriminatorBlock(entry, block, resampling.down(stage.image_channels, stage.factor))

    def discriminator_head(self, stage: Stage) -> nn.Module:
        """Return PGGAN's head, with a layer from the image before it."""
        entry = self._make_entry(stage)
        return SkipHead(entry, super().discriminator_head(stage))

    def encoder_head(self, stage: Stage, latent_size: int) -> nn.Module:
        """Return PGGAN's head of an encoder, with a layer from the image before it."""
        entry = self._make_entry(stage)
        return SkipHead(entry, super().encoder_head(stage, latent_size))

    def _make_entry(self, stage: Stage) -> Entry:
        return Entry(super().from_image(stage), stage.image_channels)


def zero_last_convolution(module: nn.Module) -> None:
    """Set the weight of the last convolution in a module to 0; its bias is 0 already."""
    convolutions = [layer for layer in module.modules() if isinstance(layer, EqualizedConv2d)]
    nn.init.zeros_(convolutions[-1].weight)


class Stem(nn.Module):
    """G's stem, with the layer to the first image."""

    def __init__(self, stem: nn.Module, own: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.own = own

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Features:
        """Map latents (N, Z) and labels (N,) | None to the base stage's Features."""
        maps = self.stem(latents, labels)
        return Features(maps, self.own(maps))


class Block(nn.Module):
    """A block of G, with the layer to the image that it adds to the one before."""

    def __init__(self, block: nn.Module, own: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.own = own
        self.up = up

    def forward(self, features: Features) -> Features:
        """Map the Features of the stage before to those of this one."""
        maps = self.block(features.maps)
        return Features(maps, self.up(features.image) + self.own(maps))


class Entry(nn.Module):
    """D's layer from the image, whose output is added to the maps that came with the image."""

    def __init__(self, layer: nn.Module, image_channels: int) -> None:
        super().__init__()
        self.layer = layer
        self.image_channels = image_channels

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Split (N, image channels + C, h, w) into the image and maps (N, C, h, w), and add the layer to the maps."""
        image, maps = features.tensor_split([self.image_channels], dim=1)
        read = self.layer(image)
        # In the layer's dtype, which autocast may have lowered: the maps came in the dtype of the image.
        return image, read + maps.to(read.dtype)


class DiscriminatorBlock(nn.Module):
    """A block of D beside the image, which is made smaller."""

    def __init__(self, entry: Entry, block: nn.Module, down: nn.Module) -> None:
        super().__init__()
        self.entry = entry
        self.block = block
        self.down = down

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, image channels + C, h, w) to (N, image channels + C', h / factor, w / factor)."""
        image, maps = self.entry(features)
        return torch.cat([self.down(image), self.block(maps)], dim=1)


class SkipHead(nn.Module):
    """The head of D or of an encoder, behind its layer from the image."""

    def __init__(self, entry: Entry, head: nn.Module) -> None:
        super().__init__()
        self.entry = entry
        self.head = head

    def forward(self, features: Tensor, *labels: Tensor | None) -> Scores | Tensor:
        """Map features (N, image channels + C, h, w), and for D labels (N,) | None, to Scores or codes (N, K)."""
        _, maps = self.entry(features)
        output: Scores | Tensor = self.head(maps, *labels)
        return output
