"""The fade in image space: both networks' old paths, for architectures to inherit."""

from __future__ import annotations

from torch import Tensor, nn

from pggan_kit import Resampling, Stage


class ImageSpaceFade:
    """The paper's fade (Karras et al. 2018, section 2, figure 2), for architectures to inherit.

    The old path is the old layer to or from images, with an image that is made larger (in G) or smaller (in D). So at
    alpha 0 a grown network computes what it computed before.
    """

    preserves_function = True

    def generator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_to_image: nn.Module
    ) -> nn.Module:
        """Return G's old path: the image of the stage before, made larger."""
        return LargerImage(old_to_image, resampling.up(stage.image_channels, stage.factor))

    def discriminator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_from_image: nn.Module
    ) -> nn.Module:
        """Return D's old path: the features of the stage before, from an image made smaller."""
        return SmallerImage(old_from_image, resampling.down(stage.image_channels, stage.factor))


class LargerImage(nn.Module):
    """G's old path: `up(old_to_image(features))`."""

    def __init__(self, old_to_image: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.old_to_image = old_to_image
        self.up = up

    def forward(self, features: Tensor, new_to_image: nn.Module) -> Tensor:
        """Map features of the stage before to images of this one."""
        image: Tensor = self.up(self.old_to_image(features))
        return image


class SmallerImage(nn.Module):
    """D's old path: `old_from_image(down(images))`."""

    def __init__(self, old_from_image: nn.Module, down: nn.Module) -> None:
        super().__init__()
        self.old_from_image = old_from_image
        self.down = down

    def forward(self, images: Tensor, new_features: Tensor, new_from_image: nn.Module) -> Tensor:
        """Map images of this stage to features of the stage before."""
        features: Tensor = self.old_from_image(self.down(images))
        return features
