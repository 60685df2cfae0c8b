"""Grow the networks and fade in their new layers, in the same way for every architecture."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.utils.parametrize import ParametrizationList

from pggan_kit.components import Architecture, Piece, Resampling, Scores, StyledStem
from pggan_kit.errors import PluginError
from pggan_kit.layers.tensors import at_least_float32, convert_to_channels_last
from pggan_kit.schedule import Stage
from pggan_kit.system.seeding import derive, seed_torch

N = TypeVar("N", bound="GrowingNetwork")


class BuiltPiece(NamedTuple):
    """A piece of a network as it stands there.

    Attributes:
        piece: its name and birth.
        module: its layers.
        weights: its parameters. Those that two pieces hold are the older piece's.
    """

    piece: Piece
    module: nn.Module
    weights: tuple[nn.Parameter, ...]


MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
"""Attributes that each module has, whatever its class."""

REGISTERING: dict[tuple[type, bool], str] = {
    (list, True): "nn.ModuleList",
    (list, False): "nn.ParameterList",
    (dict, True): "nn.ModuleDict",
    (dict, False): "nn.ParameterDict",
}
"""What registers that which a plain container holds, by the container's kind and whether it holds modules."""


def iterate_leaves(value: Any) -> Iterator[Any]:
    """Yield what plain lists, tuples and dicts hold in the end."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from iterate_leaves(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from iterate_leaves(item)
    else:
        yield value


def describe_unregistered(module: nn.Module, registered: Collection[int]) -> str | None:
    """Return which attribute of a module holds layers or weights that no network knows, and what to do; None if none.

    Plain tensors are not looked at: they may be derived from weights, or constants.

    Args:
        module: The module.
        registered: Identities of all modules and parameters of the network.
    """
    for path, layer in module.named_modules():
        for name, value in vars(layer).items():
            if name in MODULE_ATTRIBUTES:
                continue
            for leaf in iterate_leaves(value):
                has_state = isinstance(leaf, nn.Module) and bool(leaf.state_dict())
                if id(leaf) in registered or not (has_state or isinstance(leaf, nn.Parameter)):
                    continue
                where = f"{path}.{name}".lstrip(".")
                if leaf is value:
                    return f"{where} is not registered: set it by an ordinary assignment, after super().__init__()"
                container = dict if isinstance(value, dict) else list
                return f"{where} is a plain {type(value).__name__}: use {REGISTERING[container, has_state]}"
    return None


def blend_features(old: Any, new: Any, alpha: Tensor) -> Any:
    """Blend what the old path and the new one pass on: `(1 - alpha) * old + alpha * new`.

    Args:
        old: A tensor, or a NamedTuple, whose tensors are blended one by one. What in it is no floating-point tensor,
            such as labels, is that of the new path.
        new: The same.
        alpha: 0-dim, the new path's share.

    Raises:
        TypeError: The two are something else, or differ in kind.
    """
    # One tensor; labels are no features, and have no mean.
    if isinstance(new, Tensor) and isinstance(old, Tensor):
        if not new.is_floating_point():
            return new
        return torch.lerp(old.to(new.dtype), new, alpha.to(new.dtype))

    is_named_tuple = isinstance(new, tuple) and hasattr(new, "_fields")
    if not is_named_tuple or type(old) is not type(new):
        raise TypeError(
            f"in a fade the old path returns a {type(old).__name__} and the new one a {type(new).__name__}: both must "
            "return a tensor, or one NamedTuple of tensors"
        )

    # Several: each field by itself.
    fields = []
    for old_field, new_field in zip(old, new, strict=True):
        if new_field is None or isinstance(new_field, (int, float, str)):
            fields.append(new_field)
        else:
            fields.append(blend_features(old_field, new_field, alpha))
    return type(new)(*fields)


class GrowingNetwork(nn.Module):
    """The common part of all networks: blocks by stage, and the bridge that exists only while a stage fades in.

    Attributes:
        kind: the network's name, which seeds its initial weights.
        channels_last: whether its weights have that memory format; images are then converted to it.
        stages: the stages it has grown to, from the base up.
        frozen: the pieces that do not learn.
    """

    kind = ""
    channels_last = False
    stages: tuple[Stage, ...] = ()
    frozen: frozenset[Piece] = frozenset()

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
        # Whether each parameter was made to learn: later `requires_grad` says whose turn it is.
        self._learns: dict[nn.Parameter, bool] = {}
        self._forget_searches()

    def _forget_searches(self) -> None:
        """Forget what was searched among its modules, which have changed."""
        self._weights: tuple[nn.Parameter, ...] | None = None
        self._learning_weights: tuple[nn.Parameter, ...] | None = None
        self._pieces: tuple[BuiltPiece, ...] | None = None

    def weights(self) -> tuple[nn.Parameter, ...]:
        """Return all parameters, searched once after each growth: at 4x4 such searches are a twentieth of a step."""
        if self._weights is None:
            self._weights = tuple(self.parameters())
        return self._weights

    def _list_named_modules(self) -> list[tuple[str, Stage, nn.Module | None]]:
        """Return the name, birth and layers of each piece, from the oldest on; None for layers that are not there."""
        raise NotImplementedError

    def pieces(self) -> tuple[BuiltPiece, ...]:
        """Return all pieces, from the oldest on, searched once after each growth."""
        if self._pieces is None:
            taken: set[nn.Parameter] = set()
            pieces = []
            for name, birth, module in self._list_named_modules():
                if module is None:
                    continue
                weights = tuple(param for param in module.parameters() if param not in taken)
                taken.update(weights)
                pieces.append(BuiltPiece(Piece(self.kind, name, birth), module, weights))
            self._pieces = tuple(pieces)
        return self._pieces

    def freeze(self, pieces: Collection[Piece]) -> None:
        """Freeze pieces in place of those that were frozen before.

        Those that are frozen no more leave inference mode, and their weights get gradients again once a step asks for
        them: each step sets `requires_grad` of the weights that learn.

        A frozen piece is a fixed function: it stays in inference mode while the network trains, so that neither its
        weights nor its buffers change.
        """
        self.frozen = frozenset(pieces)
        self._learning_weights = None
        for built in self.pieces():
            if built.piece in self.frozen:
                built.module.requires_grad_(False)
                # An optimizer that is not given them does not clear them.
                built.module.zero_grad(set_to_none=True)
        self.train(self.training)

    def train(self: N, mode: bool = True) -> N:
        """Set the mode of all layers; those of frozen pieces stay in inference mode."""
        super().train(mode)
        if self.frozen:
            for built in self.pieces():
                if built.piece in self.frozen:
                    built.module.eval()
        return self

    def learning_weights(self) -> tuple[nn.Parameter, ...]:
        """Return the parameters that learn, searched once after each growth and each freezing."""
        if self._learning_weights is None:
            frozen = {param for built in self.pieces() if built.piece in self.frozen for param in built.weights}
            learning = (param for param in self.weights() if param not in frozen and not self.is_constant(param))
            self._learning_weights = tuple(learning)
        return self._learning_weights

    def reset_requires_grad(self) -> None:
        """Let `requires_grad` of each parameter be as the architecture made it, whatever was frozen or trained last."""
        for param, learns in self._learns.items():
            param.requires_grad_(learns)

    def is_constant(self, param: nn.Parameter) -> bool:
        """Return whether the architecture made a parameter with `requires_grad` False: it never learns."""
        return not self._learns[param]

    def _take_in_layers(self) -> None:
        """Check the layers that have come, and note which of their parameters learn.

        Raises:
            PluginError: See `require_registered`.
        """
        self.require_registered()
        self._note_learning_parameters()

    def _note_learning_parameters(self) -> None:
        self._learns = {param: self._learns.get(param, param.requires_grad) for param in self.parameters()}

    def list_moving_buffers(self) -> list[Tensor]:
        """Return the buffers of all layers that are not frozen."""
        kept = {
            id(buffer) for built in self.pieces() if built.piece in self.frozen for buffer in built.module.buffers()
        }
        return [buffer for buffer in self.buffers() if id(buffer) not in kept]

    def require_registered(self) -> None:
        """Check that the network knows all layers and weights of its pieces.

        Raises:
            PluginError: A module keeps some in a plain list or dict: no optimizer would be given them, they would be
                in no checkpoint, and stay on the CPU.
        """
        registered = {id(module) for module in self.modules()} | {id(param) for param in self.parameters()}
        for name, birth, module in self._list_named_modules():
            if module is None:
                continue
            wrong = describe_unregistered(module, registered)
            if wrong is not None:
                maker = f"architectures.{type(self.architecture).__name__}"
                raise PluginError(
                    f"{maker}: in the {Piece(self.kind, name, birth)}, {wrong}; else its weights never learn, and are "
                    "in no checkpoint"
                )

    def seed_piece(self, piece: str, stage: Stage) -> None:
        """Seed the initial weights of the next piece, so that they depend on the seed and the piece's place alone."""
        seed_torch(derive(self.seed, self.kind, piece, stage.index))

    def end_fade(self) -> None:
        """Drop the old path. Does nothing where there is none."""
        self.bridge = None
        self._forget_searches()
        self._note_learning_parameters()


class Synthesis(NamedTuple):
    """What the generator computed on the way from latents to images.

    Attributes:
        images: (N, C, h, w).
        styles: (N, L, W) of a `StyledStem`, None of another.
        features: what the stem and each block handed on, where it was asked for.
    """

    images: Tensor
    styles: Tensor | None
    features: tuple[Any, ...]


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
        self.stages = (base,)

        # Each piece draws its initial weights from a seed of its own.
        self.seed_piece("stem", base)
        self.stem = architecture.generator_stem(latent_size, base)
        self._is_styled = isinstance(self.stem, StyledStem)
        self.seed_piece("to_image", base)
        self.to_image = architecture.to_image(base)
        # When each weight came, and by which name, for averages and learning rates of pieces.
        self._births: dict[nn.Parameter, int] = {}
        self._first_names: dict[nn.Parameter, str] = {}
        self._note_births(base)
        self._take_in_layers()

    def grow(self, stage: Stage, bridged: bool) -> None:
        """Add the block of `stage`; with `bridged`, keep the old path beside it until `end_fade`."""
        previous = stage.previous
        assert previous is not None and self.bridge is None
        self.stages = (*self.stages, stage)
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
        self._take_in_layers()

    def end_fade(self) -> None:
        """Drop the old path. Does nothing where there is none."""
        super().end_fade()
        self._births = {param: self._births[param] for param in self.parameters()}
        self._first_names = {param: self._first_names[param] for param in self.parameters()}

    def _forget_searches(self) -> None:
        super()._forget_searches()
        self._weights_by_birth: dict[bool, dict[int, list[Tensor]]] = {}
        self._batch_norms: tuple[BatchNorm, ...] | None = None
        self._has_buffers: bool | None = None

    def _list_named_modules(self) -> list[tuple[str, Stage, nn.Module | None]]:
        newest = self.stages[-1]
        blocks = [("block", stage, self.blocks[str(stage.index)]) for stage in self.stages[1:]]
        return [
            ("stem", self.stages[0], self.stem),
            *blocks,
            ("to_image", newest, self.to_image),
            ("bridge", newest, self.bridge),
        ]

    def _note_births(self, stage: Stage) -> None:
        """Note `stage` as the birth of all parameters that were not there before, and the names that they have."""
        births: dict[nn.Parameter, int] = {}
        first_names: dict[nn.Parameter, str] = {}
        for name, param in self.named_parameters():
            births[param] = self._births.get(param, stage.index)
            first_names[param] = self._first_names.get(param, f"{stage.index}/{name}")
        self._births = births
        self._first_names = first_names

    def group_weights_by_birth(self, with_frozen: bool = False) -> Mapping[int, list[Tensor]]:
        """Return the parameters that learn by the index of the stage with which they came.

        They are searched once after each growth and each freezing.

        Args:
            with_frozen: Whether those that do not learn are among them.
        """
        groups = self._weights_by_birth.get(with_frozen)
        if groups is None:
            groups = {}
            for param in self.weights() if with_frozen else self.learning_weights():
                groups.setdefault(self._births[param], []).append(param)
            self._weights_by_birth[with_frozen] = groups
        return groups

    def name_weights(self) -> dict[str, nn.Parameter]:
        """Return all parameters by names that they keep for life: `2/to_image.weight`, also within an old path.

        A name has the index of the stage with which the parameter came, and the name that it had then.
        """
        return {self._first_names[param]: param for param in self.weights()}

    def name_weights_by_birth(self) -> dict[int, list[str]]:
        """Return the names for life of all parameters, by the index of the stage with which they came."""
        names: dict[int, list[str]] = {}
        for name, param in self.name_weights().items():
            names.setdefault(self._births[param], []).append(name)
        return names

    def freeze(self, pieces: Collection[Piece]) -> None:
        """Freeze pieces in place of those that were frozen before; see `GrowingNetwork.freeze`."""
        super().freeze(pieces)
        self._weights_by_birth = {}

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
        return self.synthesise(latents, labels, alpha).images

    def map_latents(self, latents: Tensor, labels: Tensor | None = None) -> Tensor | None:
        """Return the styles (N, L, W) of latents (N, Z) and labels (N,) or None; None for a network without styles."""
        if not self._is_styled:
            return None
        stem: Any = self.stem
        styles: Tensor = stem.map_latents(latents, labels, len(self.blocks), self.training)
        return styles

    def synthesise(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
        alpha: Tensor | None = None,
        styles: Tensor | None = None,
        record: bool = False,
    ) -> Synthesis:
        """Return images with what led to them.

        Args:
            latents, labels, alpha: see `forward`.
            styles: (N, L, W), instead of those of the latents.
            record: whether the features of all stages are kept, which takes memory where nothing is differentiated.
        """
        if styles is None:
            styles = self.map_latents(latents, labels)
        stem: Any = self.stem
        features = stem(latents, labels) if styles is None else stem.begin(styles)

        # All that is handed on is kept only for those who ask.
        previous = features
        recorded = [features]
        for block in self.blocks.values():
            previous = features
            features = block(features)
            if record:
                recorded.append(features)

        # The old path starts from the features before the newest block.
        image: Tensor = self.to_image(features)
        if alpha is not None:
            assert self.bridge is not None
            old = self.bridge(previous, self.to_image)
            image = blend_features(old, image, alpha)
        return Synthesis(at_least_float32(self._finish_images(image)), styles, tuple(recorded) if record else ())

    def list_stage_images(self, features: tuple[Any, ...]) -> tuple[Tensor, ...]:
        """Return the image of each stage, smallest first, where the architecture has `images_at_each_stage`."""
        if not getattr(self.architecture, "images_at_each_stage", False):
            return ()
        return tuple(at_least_float32(self._finish_images(self.to_image(each))) for each in features)

    def _finish_images(self, images: Tensor) -> Tensor:
        """Return images as the architecture finishes them, behind the blend of a fade."""
        finish = getattr(self.architecture, "finish_images", None)
        if finish is None:
            return images
        finished: Tensor = finish(images)
        return finished


def read_birth(name: str) -> int:
    """Return the index of the stage with which a parameter came, of the name that `name_weights` gives it."""
    return int(name.partition("/")[0])


class ImageReader(GrowingNetwork):
    """The common part of the networks that read images: all but the head, the mirror of the generator.

    Attributes:
        stage: the stage that it has grown to, whose size its layers work at.
        head: what reads the features of the base stage.
    """

    head: nn.Module

    def __init__(
        self,
        architecture: Architecture,
        resampling: Resampling,
        image_resampling: Resampling,
        seed: int,
        base: Stage,
    ) -> None:
        super().__init__(architecture, resampling, image_resampling, seed)
        self.stages = (base,)
        self.stage = base
        self.seed_piece("from_image", base)
        self.from_image = architecture.from_image(base)

    def grow(self, stage: Stage, bridged: bool) -> None:
        """Add the block of `stage`; with `bridged`, keep the old path beside it until `end_fade`."""
        previous = stage.previous
        assert previous is not None and self.bridge is None
        self.stages = (*self.stages, stage)
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
        self.stage = stage
        self._take_in_layers()

    def _list_named_modules(self) -> list[tuple[str, Stage, nn.Module | None]]:
        newest = self.stages[-1]
        blocks = [("block", stage, self.blocks[str(stage.index)]) for stage in self.stages[1:]]
        return [
            ("head", self.stages[0], self.head),
            *blocks,
            ("from_image", newest, self.from_image),
            ("bridge", newest, self.bridge),
        ]

    def read_features(self, images: Tensor, alpha: Tensor | None) -> Any:
        """Return the features of the base stage, which the head reads.

        Args:
            images: (N, C, h, w), of its stage's size.
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
                features = blend_features(old, features, alpha)
        return features


class Discriminator(ImageReader):
    """The discriminator: images to scores.

    Attributes:
        resize: the way of images of another size to its own; None where it is shown images of its own.
    """

    kind = "discriminator"

    def __init__(
        self,
        architecture: Architecture,
        resampling: Resampling,
        image_resampling: Resampling,
        seed: int,
        base: Stage,
    ) -> None:
        super().__init__(architecture, resampling, image_resampling, seed, base)
        self.resize: nn.Module | None = None
        self.seed_piece("head", base)
        self.head = architecture.discriminator_head(base)
        self._take_in_layers()

    def expect_images_of(self, stage: Stage) -> None:
        """Prepare for images of a stage's size, which need not be its own."""
        self.resize = None
        channels = stage.image_channels
        if stage.height < self.stage.height:
            self.resize = self.image_resampling.up(channels, self.stage.height // stage.height)
        elif stage.height > self.stage.height:
            self.resize = self.image_resampling.down(channels, stage.height // self.stage.height)

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

    def read_features(self, images: Tensor, alpha: Tensor | None) -> Any:
        """Return the features of the base stage, of images (N, C, h, w) of the size that it expects."""
        if self.resize is not None:
            images = self.resize(images)
        return super().read_features(images, alpha)

    def forward(self, images: Tensor, labels: Tensor | None = None, alpha: Tensor | None = None) -> Scores:
        """Return scores of images.

        Args:
            images: (N, C, h, w), of the size that it expects.
            labels: (N,), where the architecture is conditional. They go to the head as they are, so that a head of
                one's own may read something else there, such as latents (N, Z).
            alpha: 0-dim, the new path's share; None for all of it.
        """
        scores: object = self.head(self.read_features(images, alpha), labels)
        if not isinstance(scores, Scores):
            raise TypeError(f"the discriminator's head returned a {type(scores).__name__}, and must return Scores")
        # A loss that compares scores of shape (N, 1) with others would compare each with all.
        if scores.score.shape != (len(images),):
            shape = tuple(scores.score.shape)
            raise TypeError(f"the discriminator's head returned scores {shape}, and must return ({len(images)},)")
        return scores._replace(score=at_least_float32(scores.score))


class Encoder(ImageReader):
    """The encoder: images to codes, such as latents; it reads images as a discriminator does."""

    kind = "encoder"

    def __init__(
        self,
        architecture: Architecture,
        resampling: Resampling,
        image_resampling: Resampling,
        seed: int,
        latent_size: int,
        base: Stage,
    ) -> None:
        super().__init__(architecture, resampling, image_resampling, seed, base)
        maker: Any = architecture
        self.seed_piece("head", base)
        self.head = maker.encoder_head(base, latent_size)
        self._take_in_layers()

    def forward(self, images: Tensor, alpha: Tensor | None = None) -> Tensor:
        """Return codes (N, K), where K is what the architecture's head makes.

        Args:
            images: (N, C, h, w), of its stage's size.
            alpha: 0-dim, the new path's share; None for all of it.
        """
        codes: object = self.head(self.read_features(images, alpha))
        if not isinstance(codes, Tensor):
            raise TypeError(f"the encoder's head returned a {type(codes).__name__}, and must return a tensor (N, K)")
        if codes.dim() != 2 or len(codes) != len(images):
            shape = tuple(codes.shape)
            raise TypeError(f"the encoder's head returned a tensor {shape}, and must return ({len(images)}, K)")
        return at_least_float32(codes)
