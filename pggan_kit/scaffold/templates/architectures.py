"""An architecture of your own: here one convolution per stage. The core composes, grows and fades the modules."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pggan_kit import Component, Resampling, Scores, Stage, check_at_least, hookimpl


class Stem(nn.Module):
    """The generator's first module: latents (N, Z), labels (N,) or None -> features (N, channels, h, w)."""

    def __init__(self, latent_size: int, channels: int, stage: Stage) -> None:
        super().__init__()
        self.shape = (channels, stage.height, stage.width)
        self.dense = nn.Linear(latent_size, channels * stage.height * stage.width)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the features of latents."""
        return F.leaky_relu(self.dense(latents).view(-1, *self.shape), 0.2)


class Head(nn.Module):
    """The discriminator's last module: features (N, channels, h, w), labels (N,) or None -> Scores."""

    def __init__(self, channels: int, stage: Stage) -> None:
        super().__init__()
        self.dense = nn.Linear(channels * stage.height * stage.width, 1)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Scores:
        """Return the scores of features."""
        return Scores(self.dense(features.flatten(1)).squeeze(1), labels=labels)


class GeneratorBridge(nn.Module):
    """The old path of G's fade: the smaller image, enlarged."""

    def __init__(self, old_to_image: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.old_to_image = old_to_image
        self.up = up

    def forward(self, features: Tensor, new_to_image: nn.Module) -> Any:
        """Return images of the new size without the new block."""
        return self.up(self.old_to_image(features))


class DiscriminatorBridge(nn.Module):
    """The old path of D's fade: the features of the image, made smaller."""

    def __init__(self, old_from_image: nn.Module, down: nn.Module) -> None:
        super().__init__()
        self.old_from_image = old_from_image
        self.down = down

    def forward(self, images: Tensor, new_features: Tensor, new_from_image: nn.Module) -> Any:
        """Return features of the previous size without the new block."""
        return self.old_from_image(self.down(images))


class Mine:
    """A 3x3 convolution and a leaky ReLU for each stage of both networks.

    Args:
        channels: Number of channels of all features, at least 1.

    Raises:
        ValueError: The number is below 1.
    """

    preserves_function = True  # at alpha 0 a grown network computes what it computed before
    conditional = False  # the networks do not use labels

    def __init__(self, channels: int = 32) -> None:
        check_at_least("channels", channels, 1)
        self.channels = channels

    def generator_stem(self, latent_size: int, stage: Stage) -> nn.Module:
        """Return a module (latents, labels) -> features of the base stage."""
        return Stem(latent_size, self.channels, stage)

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """Return a module: features of `previous` -> features of `stage`."""
        return nn.Sequential(resampling.up(self.channels, stage.factor), self._make_convolution(), nn.LeakyReLU(0.2))

    def to_image(self, stage: Stage) -> nn.Module:
        """Return a module: features -> images (N, C, h, w)."""
        return nn.Conv2d(self.channels, stage.image_channels, 1)

    def generator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_to_image: nn.Module
    ) -> nn.Module:
        """Return a module (features of `previous`, the new to_image) -> images of `stage`."""
        return GeneratorBridge(old_to_image, resampling.up(stage.image_channels, stage.factor))

    def from_image(self, stage: Stage) -> nn.Module:
        """Return a module: images -> features of `stage`."""
        return nn.Sequential(nn.Conv2d(stage.image_channels, self.channels, 1), nn.LeakyReLU(0.2))

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """Return a module: features of `stage` -> features of `previous`."""
        return nn.Sequential(self._make_convolution(), nn.LeakyReLU(0.2), resampling.down(self.channels, stage.factor))

    def discriminator_head(self, stage: Stage) -> nn.Module:
        """Return a module (features of the base stage, labels) -> Scores."""
        return Head(self.channels, stage)

    def discriminator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_from_image: nn.Module
    ) -> nn.Module:
        """Return a module (images of `stage`, features from the new from_image, it) -> features of `previous`."""
        return DiscriminatorBridge(old_from_image, resampling.down(stage.image_channels, stage.factor))

    def _make_convolution(self) -> nn.Module:
        return nn.Conv2d(self.channels, self.channels, 3, padding=1)


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@architectures.Mine()`."""
    return [Component("architectures", "Mine", Mine)]
