"""Grow the two networks and fade in their new layers, in the same way for every architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.utils.parametrize import ParametrizationList

from pggan_kit.components import Architecture, Resampling, Scores
from pggan_kit.layers.tensors import at_least_float32, convert_to_channels_last
from pggan_kit.schedule import Stage
from pggan_kit.system.seeding import derive


class GrowingNetwork(nn.Module):
    """The common part of both networks: blocks by stage, and the bridge that exists only while a stage fades in.

    Attributes:
        kind: the network's name, which seeds its initial weights.
        channels_last: whether its weights have that memory format; images are then converted to it.
    """

    kind = ""
    channels_last = False

    def __init__(
        self, architecture: Architecture, resampling: Resampling, image_resampling: Resampling, seed: int
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.resampling = resampling
        self.image_resampling = image_resampling
        self.seed = seed
        self.blocks = nn.ModuleDict()
        self.bridge: nn.Module | None = None
        self._forget_searches()

    def _forget_searches(self) -> None:
        """Forget what was searched among its modules, which have changed."""
        self._weights: tuple[nn.Parameter, ...] | None = None

    def weights(self) -> tuple[nn.Parameter, ...]:
        """Return all parameters, searched once after each growth: at 4x4 such searches are a twentieth of a step."""
        if self._weights is None:
            self._weights = tuple(self.parameters())
        return self._weights

    def seed_piece(self, piece: str, stage: Stage) -> None:
        """Seed the initial weights of the next piece, so that they depend on the seed and the piece's place alone."""
        torch.manual_seed(derive(self.seed, self.kind, piece, stage.index))

    def end_fade(self) -> None:
        """Drop the old path. Does nothing where there is none."""
        self.bridge = None
        self._forget_searches()


class Generator(GrowingNetwork):
    """The generator: latents to images, at the size it has grown to."""

    kind = "generator"

    def __init__(
        self,
        architecture: Architecture,
        resampling: Resampling,
        image_resampling: Resampling,
        seed: int,
        latent_size: int,
        base: Stage,
    ) -> None:
        super().__init__(architecture, resampling, image_resampling, seed)
        self.latent_size = latent_size
        self.seed_piece("stem", base)
        self.stem = architecture.generator_stem(latent_size, base)
        self.seed_piece("to_image", base)
        self.to_image = architecture.to_image(base)
        self._births: dict[nn.Parameter, int] = {}
        self._note_births(base)

    def grow(self, stage: Stage, bridged: bool) -> None:
        """Add the block of `stage`; with `bridged`, keep the old path beside it until `end_fade`."""
        previous = stage.previous
        assert previous is not None and self.bridge is None
        self._forget_searches()

        # The new path.
        old_to_image = self.to_image
        self.seed_piece("block", stage)
        self.blocks[str(stage.index)] = self.architecture.generator_block(previous, stage, self.resampling)
        self.seed_piece("to_image", stage)
        self.to_image = self.architecture.to_image(stage)
        inherit = getattr(self.architecture, "inherit_to_image", None)
        if inherit is not None:
            inherit(old_to_image, self.to_image, self.blocks[str(stage.index)])

        # The old path, whose layer to the image would otherwise be dropped.
        if bridged:
            self.seed_piece("bridge", stage)
            self.bridge = self.architecture.generator_bridge(previous, stage, self.image_resampling, old_to_image)
        self._note_births(stage)

    def end_fade(self) -> None:
        """Drop the old path. Does nothing where there is none."""
        super().end_fade()
        self._births = {param: self._births[param] for param in self.parameters()}

    def _forget_searches(self) -> None:
        super()._forget_searches()
        self._weights_by_birth: dict[int, list[Tensor]] | None = None
        self._batch_norms: tuple[BatchNorm, ...] | None = None
        self._has_buffers: bool | None = None

    def _note_births(self, stage: Stage) -> None:
        """Note `stage` as the birth of all parameters that were not there before."""
        self._births = {param: self._births.get(param, stage.index) for param in self.parameters()}

    def group_weights_by_birth(self) -> Mapping[int, list[Tensor]]:
        """Return all parameters by the index of the stage with which they came, searched once after each growth."""
        if self._weights_by_birth is None:
            self._weights_by_birth = {}
            for param in self.weights():
                birth = self._births[param]
                self._weights_by_birth.setdefault(birth, []).append(param)
        return self._weights_by_birth

    def find_batch_norms(self) -> tuple[BatchNorm, ...]:
        """Return the layers that keep running statistics of batches, searched once after each growth."""
        if self._batch_norms is None:
            norms = (module for module in self.modules() if isinstance(module, BatchNorm))
            self._batch_norms = tuple(norm for norm in norms if norm.running_mean is not None)
        return self._batch_norms

    def list_followed_buffers(self, statistics: bool) -> list[Tensor]:
        """Return the buffers that an average copies as they are.

        Args:
            statistics: whether the running statistics of batches are among them.
        """
        # Most networks have none; then they are searched only once after each growth.
        if self._has_buffers is False:
            return []
        buffers = list(self.buffers())
        self._has_buffers = bool(buffers)

        left_out: set[int] = set()
        if not statistics:
            for norm in self.find_batch_norms():
                left_out |= {id(norm.running_mean), id(norm.running_var), id(norm.num_batches_tracked)}
        return [buffer for buffer in buffers if id(buffer) not in left_out]

    def forward(self, latents: Tensor, labels: Tensor | None = None, alpha: Tensor | None = None) -> Tensor:
        """Return images (N, C, h, w).

        Args:
            latents: (N, Z).
            labels: (N,), where the architecture is conditional.
            alpha: 0-dim, the new path's share; None for all of it.
        """
        features = self.stem(latents, labels)
        previous = features
        for block in self.blocks.values():
            previous = features
            features = block(features)

        # The old path starts from the features before the newest block.
        image: Tensor = self.to_image(features)
        if alpha is not None:
            assert self.bridge is not None
            old = self.bridge(previous, self.to_image)
            image = torch.lerp(old.to(image.dtype), image, alpha.to(image.dtype))
        return at_least_float32(image)


class Discriminator(GrowingNetwork):
    """The discriminator: images to scores, the mirror of the generator."""

    kind = "discriminator"

    def __init__(
        self,
        architecture: Architecture,
        resampling: Resampling,
        image_resampling: Resampling,
        seed: int,
        base: Stage,
    ) -> None:
        super().__init__(architecture, resampling, image_resampling, seed)
        self.seed_piece("from_image", base)
        self.from_image = architecture.from_image(base)
        self.seed_piece("head", base)
        self.head = architecture.discriminator_head(base)

    def grow(self, stage: Stage, bridged: bool) -> None:
        """Add the block of `stage`; with `bridged`, keep the old path beside it until `end_fade`."""
        previous = stage.previous
        assert previous is not None and self.bridge is None
        self._forget_searches()

        # The new path.
        old_from_image = self.from_image
        self.seed_piece("block", stage)
        self.blocks[str(stage.index)] = self.architecture.discriminator_block(stage, previous, self.resampling)
        self.seed_piece("from_image", stage)
        self.from_image = self.architecture.from_image(stage)
        inherit = getattr(self.architecture, "inherit_from_image", None)
        if inherit is not None:
            inherit(old_from_image, self.from_image, self.blocks[str(stage.index)])

        # The old path, whose layer from the image would otherwise be dropped.
        if bridged:
            self.seed_piece("bridge", stage)
            self.bridge = self.architecture.discriminator_bridge(previous, stage, self.image_resampling, old_from_image)

    def _forget_searches(self) -> None:
        super()._forget_searches()
        self._separates: bool | None = None

    def separates_batches(self) -> bool:
        """Return whether several batches may go through in one call.

        The architecture must declare it, and there must be no batch norm, no dropout and no parametrized weight
        (spectral norm), wherever they come from. They are searched once after each growth.
        """
        if self._separates is None:
            mixing = (BatchNorm, nn.modules.dropout._DropoutNd, ParametrizationList)
            declared = getattr(self.architecture, "separates_batches", False)
            self._separates = declared and not any(isinstance(module, mixing) for module in self.modules())
        return self._separates

    def forward(self, images: Tensor, labels: Tensor | None = None, alpha: Tensor | None = None) -> Scores:
        """Return scores of images.

        Args:
            images: (N, C, h, w).
            labels: (N,), where the architecture is conditional.
            alpha: 0-dim, the new path's share; None for all of it.
        """
        if self.channels_last:
            images = convert_to_channels_last(images)
        new = self.from_image(images)
        features = new

        newest_first: list[Any] = list(self.blocks.values())[::-1]
        for index, block in enumerate(newest_first):
            features = block(features)
            # The old path joins behind the newest block.
            if index == 0 and alpha is not None:
                assert self.bridge is not None
                old = self.bridge(images, new, self.from_image)
                features = torch.lerp(old.to(features.dtype), features, alpha.to(features.dtype))
        scores: Scores = self.head(features, labels)
        return scores._replace(score=at_least_float32(scores.score))
