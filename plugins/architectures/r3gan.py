"""The networks of R3GAN (Huang et al. 2024), at any base size, growth factor and image shape."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pggan_kit import PerStage, Resampling, Scores, SettingError, Stage, check_at_least, values_per_stage
from pggan_plugins.architectures.image_fade import ImageSpaceFade
from pggan_plugins.architectures.labels import Conditioning, LabelledLatents
from pggan_plugins.architectures.layers import LEAK, Layers, Residual
from pggan_plugins.architectures.widths import check_channels, choose_width

MAX_WIDTH = 768
"""Maximum number of maps: that of the first four stages."""

WIDTH_BASE = 2**4 * MAX_WIDTH
"""Numerator of the number of maps, see `choose_width`: half as many at the fifth stage, and so on."""

GAIN = math.sqrt(2 / (1 + LEAK**2))
"""Gain that keeps the mean square of features through a leaky ReLU (He et al. 2015)."""


class R3GAN(ImageSpaceFade):
    """Residual networks without normalisation, whose blocks do nothing at first (Huang et al. 2024, arXiv:2501.05441).

    A block is 1x1, 3x3 in groups, 1x1, with more maps inside than outside, added to its input. A leaky ReLU follows the
    first two convolutions and their biases; nothing else has a bias. Between stages a 1x1 changes the number of maps,
    where it does change, at the smaller of both sizes. G begins with a learned image for each map, times a linear
    function of the latents; D ends with a weighted sum over the pixels of each map, and a linear layer. `train.loss`
    should be `losses.Relativistic` with both `penalties.R1` and `penalties.R2`, and `train.resampling`
    `resampling.Blur`, which is the published pair of filters.

    The last convolution of each block starts at zero, and the first two are drawn with the gain
    `sqrt(2 / 1.04) * L^(-1/4)`, where L is the number of blocks of a network (after Zhang et al. 2019). Defaults are
    those of the CIFAR-10 and FFHQ presets of the authors' code (github.com/brownvc/R3GAN); its ImageNet presets have
    twice as many maps, in groups of 32.

    New blocks do nothing at first, but the layers to and from images would be new as well. With `inherit_images` they
    take over the function of those before (see `inherit_to_image`), so that a hard switch changes neither network: G's
    image is that of before, enlarged by `train.resampling`, and D scores an image as it did after its reduction. The
    published networks do not grow; there is nothing to inherit in them.

    Args:
        channels: Number of maps of each stage; may be per stage. None: the published 768 at each of the first four
            stages, then half as many at each.
        blocks: Number of residual blocks of each stage; may be per stage.
        expansion: Factor of the number of maps inside a block.
        group_size: Number of maps of a group of the 3x3; it must divide the maps inside a block.
        depth: Number of blocks L for which initial weights are drawn. None: as many as a network has when the block is
            added to it.
        inherit_images: Whether a new stage takes over the function of the layers to and from images. A stage whose
            number of maps differs from that of the stage before needs at least as many as an image has channels.
        conditioning, label_size: Use of labels: see `labels.Conditioning`. The published networks use `projection`, and
            their score of an image with a label is the projection alone.

    Raises:
        ValueError: A value is out of range.
    """

    separates_batches = True

    def __init__(
        self,
        channels: PerStage[int] | None = None,
        blocks: PerStage[int] = 2,
        expansion: int = 2,
        group_size: int = 16,
        depth: int | None = None,
        inherit_images: bool = True,
        conditioning: str = "none",
        label_size: int = 64,
    ) -> None:
        check_channels(channels)
        check_at_least("blocks", blocks, 1, whole=True)
        check_at_least("expansion", expansion, 1, whole=True)
        check_at_least("group_size", group_size, 1, whole=True)
        check_at_least("depth", depth, 1, instead="None", whole=True)
        # Grouped convolutions need whole groups at every width.
        for width in list_values(channels):
            check_groups(width * expansion, group_size)

        self.channels = channels
        self.blocks = blocks
        self.expansion = expansion
        self.group_size = group_size
        self.depth = depth
        self.inherit_images = inherit_images
        self.conditioning = Conditioning(conditioning, label_size)
        self.conditional = conditioning != "none"
        self.layers = Layers("leaky_relu", "none", equalized_lr=False)

    def width(self, stage: Stage) -> int:
        """Return the number of maps of a stage."""
        return choose_width(stage, self.channels, WIDTH_BASE, MAX_WIDTH)

    def generator_stem(self, latent_size: int, stage: Stage) -> nn.Module:
        """Return the layers from latents to the base stage's features, and its blocks."""
        latents = self.conditioning.make_latents(latent_size, stage, normalise=False)
        if latents.embedding is not None:
            # The published embedding is a linear layer whose input is 1 at the label, drawn for K inputs.
            nn.init.normal_(latents.embedding.weight, std=1 / math.sqrt(stage.classes))
        return Stem(latents, self.width(stage), stage, self.layers, self._make_residuals(stage))

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """Return a stage of G: 1x1, up, residual blocks."""
        self._require_room_for_images(previous, stage)
        project = self._make_projection(self.width(previous), self.width(stage))
        return UpBlock(project, resampling.up(self.width(stage), stage.factor), self._make_residuals(stage))

    def to_image(self, stage: Stage) -> nn.Module:
        """Return a linear 1x1 to images."""
        return self.layers.conv(self.width(stage), stage.image_channels, 1, gain=1.0, bias=False)

    def from_image(self, stage: Stage) -> nn.Module:
        """Return a linear 1x1 from images."""
        return self.layers.conv(stage.image_channels, self.width(stage), 1, gain=1.0, bias=False)

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """Return a stage of D: residual blocks, down, 1x1."""
        self._require_room_for_images(previous, stage)
        project = self._make_projection(self.width(stage), self.width(previous))
        return DownBlock(self._make_residuals(stage), resampling.down(self.width(stage), stage.factor), project)

    def discriminator_head(self, stage: Stage) -> nn.Module:
        """Return the base stage's blocks, and the layers from its features to a score."""
        residuals = self._make_residuals(stage)
        if self.conditioning.kind == "projection":
            return ProjectionHead(residuals, self.width(stage), stage, self.layers, self.conditioning)
        return BasisHead(residuals, self.width(stage), stage, self.layers, self.conditioning)

    @torch.no_grad()
    def inherit_to_image(self, old: nn.Module, new: nn.Module, block: nn.Module) -> None:
        """Let G's new layer to images go on with the function of the old one.

        The new block does nothing but change the size and, where it has a 1x1, the maps. Without the 1x1 the new layer
        is a copy of the old one. With a 1x1 P, both are as drawn, and P is moved by the smallest step to
        `to_image P = old_to_image`.
        """
        if not self.inherit_images:
            return
        assert isinstance(block, UpBlock)
        if block.project is None:
            new.load_state_dict(old.state_dict())
            return
        projection = read_matrix(block.project)
        image_layer = read_matrix(new)
        missing = read_matrix(old) - image_layer @ projection
        write_matrix(block.project, projection + torch.linalg.pinv(image_layer) @ missing)

    @torch.no_grad()
    def inherit_from_image(self, old: nn.Module, new: nn.Module, block: nn.Module) -> None:
        """Let D's new layer from images go on with the function of the old one: the mirror of `inherit_to_image`."""
        if not self.inherit_images:
            return
        assert isinstance(block, DownBlock)
        if block.project is None:
            new.load_state_dict(old.state_dict())
            return
        projection = read_matrix(block.project)
        image_layer = read_matrix(new)
        missing = read_matrix(old) - projection @ image_layer
        write_matrix(block.project, projection + missing @ torch.linalg.pinv(image_layer))

    def _require_room_for_images(self, previous: Stage, stage: Stage) -> None:
        """Check that images fit through a new stage's maps, where a 1x1 has to inherit the function of the old layer.

        Raises:
            SettingError: They do not, since they have more channels.
        """
        width = self.width(stage)
        if self.inherit_images and width != self.width(previous) and width < stage.image_channels:
            raise SettingError(
                "inherit_images",
                f"is not possible at {stage.size}, whose {width} maps cannot hold the {stage.image_channels} channels "
                f"of an image: give channels at least {stage.image_channels} there, or bind inherit_images = False",
            )

    def _make_projection(self, inputs: int, outputs: int) -> nn.Module | None:
        """Return a linear 1x1 where the number of maps changes."""
        if inputs == outputs:
            return None
        return self.layers.conv(inputs, outputs, 1, gain=1.0, bias=False)

    def _make_residuals(self, stage: Stage) -> nn.Sequential:
        """Return the residual blocks of a stage.

        Raises:
            SettingError: The groups do not divide the maps inside a block.
        """
        width = self.width(stage)
        inside = width * self.expansion
        check_groups(inside, self.group_size)
        gain = GAIN * (self.depth or self._count_blocks(stage)) ** -0.25

        # Each branch begins as zero: its last convolution has no gain.
        layers = self.layers
        residuals: list[nn.Module] = []
        for _ in range(self._list_blocks([stage])[0]):
            branch = nn.Sequential(
                layers.conv(width, inside, 1, gain),
                layers.activation(inplace=True),
                GroupedConv2d(inside, self.group_size, gain),
                layers.activation(inplace=True),
                layers.conv(inside, width, 1, gain=0.0, bias=False),
            )
            residuals.append(Residual(branch, nn.Identity()))
        return nn.Sequential(*residuals)

    def _count_blocks(self, stage: Stage) -> int:
        """Return the number of residual blocks of a network that has grown to a stage."""
        stages: list[Stage] = []
        newest: Stage | None = stage
        while newest is not None:
            stages.append(newest)
            newest = newest.previous
        return sum(self._list_blocks(stages))

    def _list_blocks(self, stages: Iterable[Stage]) -> list[int]:
        return values_per_stage("blocks", self.blocks, [(stage.height, stage.width) for stage in stages])


def list_values(setting: PerStage[int] | None) -> list[int]:
    """Return the values of a setting that may be per stage."""
    if setting is None:
        return []
    if isinstance(setting, Mapping):
        return list(setting.values())
    return [setting]


def check_groups(channels: int, group_size: int) -> None:
    """Check that groups divide the maps inside a block.

    Raises:
        SettingError: They do not.
    """
    if channels % group_size:
        raise SettingError(
            "group_size", f"must divide the {channels} maps inside a block (expansion x channels), and is {group_size}"
        )


def read_matrix(conv: nn.Module) -> Tensor:
    """Return the weight (outputs, inputs) of a 1x1 convolution in float64, on the CPU.

    A network that grows on a GPU has its old layers there, and its new ones not yet.
    """
    return conv.get_parameter("weight").detach().flatten(1).double().cpu()


def write_matrix(conv: nn.Module, matrix: Tensor) -> None:
    """Set the weight of a 1x1 convolution to a matrix (outputs, inputs)."""
    conv.get_parameter("weight").copy_(matrix[:, :, None, None])


class GroupedConv2d(nn.Module):
    """A 3x3 convolution within groups of maps, with a bias that starts at 0.

    Args:
        channels: Number of maps.
        group_size: Number of maps of a group, which divides it.
        gain: Gain of the layer; weights are drawn from N(0, gain^2 / fan-in).
    """

    def __init__(self, channels: int, group_size: int, gain: float) -> None:
        super().__init__()
        weight = torch.randn(channels, group_size, 3, 3)
        self.weight = nn.Parameter(weight * (gain / math.sqrt(9 * group_size)))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.groups = channels // group_size

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, h, w); the shape stays."""
        return F.conv2d(x, self.weight, self.bias, padding=1, groups=self.groups)


class Stem(nn.Module):
    """G's stem: each map is a learned image, times a linear function of the latents; then the base stage's blocks."""

    def __init__(
        self, latents: LabelledLatents, channels: int, stage: Stage, layers: Layers, residuals: nn.Module
    ) -> None:
        super().__init__()
        self.latents = latents
        self.basis = nn.Parameter(torch.randn(channels, stage.height, stage.width))
        self.dense = layers.dense(latents.size, channels, gain=1.0, bias=False)
        self.residuals = residuals

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map latents (N, Z) and labels (N,) | None to features (N, C, h, w)."""
        factors = self.dense(self.latents(latents, labels))
        features: Tensor = self.residuals(self.basis.to(factors.dtype) * factors[:, :, None, None])
        return features


class UpBlock(nn.Module):
    """A stage of G: a 1x1 where the number of maps changes, up, residual blocks."""

    def __init__(self, project: nn.Module | None, up: nn.Module, residuals: nn.Module) -> None:
        super().__init__()
        self.project = project
        self.up = up
        self.residuals = residuals

    def forward(self, x: Tensor) -> Tensor:
        """Map features of the stage before to those of this one."""
        if self.project is not None:
            x = self.project(x)
        features: Tensor = self.residuals(self.up(x))
        return features


class DownBlock(nn.Module):
    """A stage of D: residual blocks, down, a 1x1 where the number of maps changes."""

    def __init__(self, residuals: nn.Module, down: nn.Module, project: nn.Module | None) -> None:
        super().__init__()
        self.residuals = residuals
        self.down = down
        self.project = project

    def forward(self, x: Tensor) -> Tensor:
        """Map features of this stage to those of the stage before."""
        features: Tensor = self.down(self.residuals(x))
        if self.project is not None:
            features = self.project(features)
        return features


class Basis(nn.Module):
    """The weighted sum over the pixels of each map: features (N, C, h, w) -> (N, C)."""

    def __init__(self, channels: int, stage: Stage) -> None:
        super().__init__()
        pixels = stage.height * stage.width
        self.weight = nn.Parameter(torch.randn(channels, stage.height, stage.width) / math.sqrt(pixels))

    def forward(self, x: Tensor) -> Tensor:
        """Sum over the pixels."""
        return (x * self.weight).sum((2, 3))


class BasisHead(nn.Module):
    """D's head without labels, or with class logits: the base stage's blocks, the basis, a linear layer."""

    def __init__(
        self, residuals: nn.Module, channels: int, stage: Stage, layers: Layers, conditioning: Conditioning
    ) -> None:
        super().__init__()
        self.residuals = residuals
        self.basis = Basis(channels, stage)
        self.score = layers.dense(channels, 1, gain=1.0, bias=False)
        self.labels = conditioning.make_scores(channels, stage, layers.dense)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Scores:
        """Map features (N, C, h, w) and labels (N,) | None to Scores."""
        x = self.basis(self.residuals(x))
        scores: Scores = self.labels(self.score(x).squeeze(1), x, labels)
        return scores


class ProjectionHead(nn.Module):
    """D's head with labels: the linear layer has as many outputs as maps; their product with an embedding is the score.

    `labels.LabelledScores` would add a score that does not depend on the label.
    """

    def __init__(
        self, residuals: nn.Module, channels: int, stage: Stage, layers: Layers, conditioning: Conditioning
    ) -> None:
        super().__init__()
        self.residuals = residuals
        self.basis = Basis(channels, stage)
        self.dense = layers.dense(channels, channels, gain=1.0, bias=False)
        classes = conditioning.count_classes(stage)
        self.embedding = nn.Embedding(classes, channels)
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(classes * channels))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Scores:
        """Map features (N, C, h, w) and labels (N,) to Scores.

        Raises:
            ValueError: There are no labels.
        """
        if labels is None:
            raise ValueError("labels: this discriminator is conditional; pass a label for each image")
        x = self.dense(self.basis(self.residuals(x)))
        return Scores((x * self.embedding(labels)).sum(1), labels=labels)
