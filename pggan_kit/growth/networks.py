"""The two networks, how they grow, and the fade: the same few lines for every architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.utils.parametrize import ParametrizationList

from pggan_kit.components import Architecture, Resampling, Scores
from pggan_kit.layers.tensors import as_channels_last, at_least_float32
from pggan_kit.schedule import Stage
from pggan_kit.system.seeding import derive


class Growing(nn.Module):
    """What both networks share: blocks keyed by stage, and the bridge that is there only while a stage fades in.

    Attributes:
        channels_last: whether its weights have that memory format; images are then brought into it.
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
        self._look_again()

    def _look_again(self) -> None:
        """Its modules have changed: forget what was looked for among them."""
        self._weights: tuple[nn.Parameter, ...] | None = None

    def weights(self) -> tuple[nn.Parameter, ...]:
        """All parameters, looked for once after each growth: at 4x4 such searches are a twentieth of a step."""
        if self._weights is None:
            self._weights = tuple(self.parameters())
        return self._weights

    def seed_piece(self, piece: str, stage: Stage) -> None:
        """Make the next piece's initial weights depend on nothing but the seed and the piece's place."""
        torch.manual_seed(derive(self.seed, self.kind, piece, stage.index))

    def end_fade(self) -> None:
        """Drop the old path. A no-op without one."""
        self.bridge = None
        self._look_again()


class Generator(Growing):
    """Latents -> images, at the size it has grown to."""

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
        assert stage.previous is not None and self.bridge is None
        self._look_again()
        architecture, old_to_image = self.architecture, self.to_image
        self.seed_piece("block", stage)
        self.blocks[str(stage.index)] = architecture.generator_block(stage.previous, stage, self.resampling)
        self.seed_piece("to_image", stage)
        self.to_image = architecture.to_image(stage)
        if bridged:
            self.seed_piece("bridge", stage)
            self.bridge = architecture.generator_bridge(stage.previous, stage, self.image_resampling, old_to_image)
        self._note_births(stage)

    def end_fade(self) -> None:
        """Drop the old path. A no-op without one."""
        super().end_fade()
        self._births = {param: self._births[param] for param in self.parameters()}

    def _look_again(self) -> None:
        super()._look_again()
        self._weights_by_birth: dict[int, list[Tensor]] | None = None
        self._batch_norms: tuple[BatchNorm, ...] | None = None
        self._has_buffers: bool | None = None

    def _note_births(self, stage: Stage) -> None:
        """Note that all parameters that were not there before came with `stage`."""
        self._births = {param: self._births.get(param, stage.index) for param in self.parameters()}

    def weights_by_birth(self) -> Mapping[int, list[Tensor]]:
        """Return all parameters by the index of the stage with which they came, looked for once after each growth."""
        if self._weights_by_birth is None:
            self._weights_by_birth = {}
            for param in self.weights():
                self._weights_by_birth.setdefault(self._births[param], []).append(param)
        return self._weights_by_birth

    def batch_norms(self) -> tuple[BatchNorm, ...]:
        """Return the layers that keep running statistics of batches, looked for once after each growth."""
        if self._batch_norms is None:
            found = (module for module in self.modules() if isinstance(module, BatchNorm))
            self._batch_norms = tuple(module for module in found if module.running_mean is not None)
        return self._batch_norms

    def followed_buffers(self, statistics: bool) -> list[Tensor]:
        """Return the buffers that an average takes over as they are. Whether there are any is looked for once.

        Args:
            statistics: whether the running statistics of batches are among them.
        """
        if self._has_buffers is False:
            return []
        found = list(self.buffers())
        self._has_buffers = bool(found)
        left_out: set[int] = set()
        if not statistics:
            for norm in self.batch_norms():
                left_out |= {id(norm.running_mean), id(norm.running_var), id(norm.num_batches_tracked)}
        return [buffer for buffer in found if id(buffer) not in left_out]

    def forward(self, latents: Tensor, labels: Tensor | None = None, alpha: Tensor | None = None) -> Tensor:
        """Images (N, C, h, w) from latents (N, Z). `alpha`: 0-dim, the new path's share; None for all of it."""
        features = previous = self.stem(latents, labels)
        for block in self.blocks.values():
            previous, features = features, block(features)
        image: Tensor = self.to_image(features)
        if alpha is not None:
            assert self.bridge is not None
            old = self.bridge(previous, self.to_image)
            image = torch.lerp(old.to(image.dtype), image, alpha.to(image.dtype))
        return at_least_float32(image)


class Discriminator(Growing):
    """Images -> Scores, the generator's mirror."""

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
        assert stage.previous is not None and self.bridge is None
        self._look_again()
        architecture, old_from_image = self.architecture, self.from_image
        self.seed_piece("block", stage)
        self.blocks[str(stage.index)] = architecture.discriminator_block(stage, stage.previous, self.resampling)
        self.seed_piece("from_image", stage)
        self.from_image = architecture.from_image(stage)
        if bridged:
            self.seed_piece("bridge", stage)
            self.bridge = architecture.discriminator_bridge(
                stage.previous, stage, self.image_resampling, old_from_image
            )

    def _look_again(self) -> None:
        super()._look_again()
        self._separates: bool | None = None

    def separates_batches(self) -> bool:
        """Whether several batches may go through in one call: the architecture says so, and there is no batch norm, no
        dropout and no parametrized weight (spectral norm), whoever brought it. Looked for once after each growth."""
        if self._separates is None:
            mixing = (BatchNorm, nn.modules.dropout._DropoutNd, ParametrizationList)
            said = getattr(self.architecture, "separates_batches", False)
            self._separates = said and not any(isinstance(module, mixing) for module in self.modules())
        return self._separates

    def forward(self, images: Tensor, labels: Tensor | None = None, alpha: Tensor | None = None) -> Scores:
        """Scores of images (N, C, h, w). `alpha`: 0-dim, the new path's share; None for all of it."""
        newest_first: list[Any] = list(self.blocks.values())[::-1]
        if self.channels_last:
            images = as_channels_last(images)
        features = new = self.from_image(images)
        for index, block in enumerate(newest_first):
            features = block(features)
            if index == 0 and alpha is not None:
                assert self.bridge is not None
                old = self.bridge(images, new, self.from_image)
                features = torch.lerp(old.to(features.dtype), features, alpha.to(features.dtype))
        scores: Scores = self.head(features, labels)
        return scores._replace(score=at_least_float32(scores.score))
