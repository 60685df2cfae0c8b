"""The kinds of component that a config composes, and the contract of each.

Shapes: N samples, C channels, (h, w) a stage's image size, Z the latent size, K classes. Images lie in [-1, 1].
A component may also implement any hook of `hookspecs.py`, which is then called for the whole run.

The blocks of a network pass on `Features`: a tensor, or a NamedTuple that the architecture defines. The core reads
images and `Scores` alone; in a fade of D it blends features, field by field.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

from pggan_kit.errors import SettingError, check_choice
from pggan_kit.schedule import Curve, at_height

if TYPE_CHECKING:
    from pathlib import Path

    # torch takes seconds: who names a component, or lists the kinds, does not wait for it.
    import numpy as np
    import torch
    from torch import Tensor, nn

    from pggan_kit.layers.resampling import Downsample, Upsample
    from pggan_kit.schedule import Position, Stage, Varying

Features = Any
"""What the blocks of a network pass on: a tensor, or a NamedTuple that the architecture defines."""


class Component(NamedTuple):
    """A row of a plugin's `components()`: what a config may name as `<kind>.<name>`.

    Attributes:
        kind: The kind, a key of `KINDS`.
        name: The name in configs, an identifier.
        factory: The class or function that makes the component. Configs bind its parameters; arguments are checked
            against its annotations.
        defaults: gin values of parameters that a config does not bind, e.g. `{"penalties": "[@penalties.R1()]"}`. Use
            them where a default is itself a component, so that configs can reach and override it.
    """

    kind: str
    name: str
    factory: Callable[..., Any]
    defaults: Mapping[str, str] = {}


class ForeignNetworks(NamedTuple):
    """Networks that another project has trained, as this framework has them.

    Attributes:
        config: Experiment as gin text, without its data set: the networks, and a recipe to go on with. Its stages end
            with that of the networks.
        image_channels: Channels of its images: 1 for gray, 3 for colour.
        stage: Number of the stage that the networks have grown to, from 0.
        generator, discriminator: Weights by the names that they have here.
        average: Weights of the averaged generator.
        alpha: Share of G's new path, in [0, 1]; 1 where no old path is there.
        bridged: Whether each network, `generator` and `discriminator`, has its old path beside the new one.
        notes: Sentences on what could not be carried over.
    """

    config: str
    image_channels: int
    stage: int
    generator: Mapping[str, Tensor]
    discriminator: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    alpha: float
    bridged: Mapping[str, bool]
    notes: Sequence[str] = ()


class Importer(Protocol):
    """A reader of trained networks that another project has saved; plugins give theirs by the hook `importers`.

    Attributes:
        name: Name of the project.
    """

    name: str

    def read(self, path: Path) -> ForeignNetworks | None:
        """Return the networks of a file; None where it is none of that project.

        A file holds data, never code: pickles are read with `torch.load(weights_only=True)`.

        Raises:
            RunError: The file cannot be read, or its networks cannot be expressed here; the message says why.
        """


class Scores(NamedTuple):
    """The output of a discriminator for a batch.

    Attributes:
        score: Scores (N,), unbounded; higher is more real.
        class_logits: Logits of the classes (N, K), or None where D does not classify.
        labels: Labels (N,) int64 that D was given, or None.
    """

    score: Tensor
    class_logits: Tensor | None = None
    labels: Tensor | None = None

    def rows(self, rows: slice) -> Scores:
        """Return the scores, logits and labels of some of the batch's samples."""
        logits = self.class_logits
        if logits is not None:
            logits = logits[rows]
        labels = self.labels
        if labels is not None:
            labels = labels[rows]
        return Scores(self.score[rows], logits, labels)


class BatchStatistic(NamedTuple):
    """Something that a network computes over several samples of a call.

    Attributes:
        net: The network, `generator`, `discriminator` or, where the architecture has `encoder_head`, `encoder`.
        name: The name for people, e.g. `minibatch stddev`.
        group: Number of samples that it is computed over, at least 1.
        alone: The statistic of one sample, e.g. `a constant`, as the end of a sentence that begins with its name.
        of_neighbours: Whether a group's samples follow each other in a batch. Ranks and slices, which take every k-th
            row, have other groups then.
    """

    net: str
    name: str
    group: int
    alone: str
    of_neighbours: bool = False


Critic = Callable[["Tensor"], Scores]
"""A discriminator with its labels, alpha and augmentation bound: images (N, C, h, w) -> Scores."""


@runtime_checkable
class Resampling(Protocol):
    """A matched pair of modules that change the size of features, for any whole factor of at least 2.

    Both keep brightness (away from the border, a constant stays as it is) and place (nothing is shifted). A learned
    pair need not, but best begins so.
    """

    def up(self, channels: int, factor: int) -> Upsample:
        """Make a module that maps (N, channels, h, w) to (N, channels, factor * h, factor * w)."""

    def down(self, channels: int, factor: int) -> Downsample:
        """Make a module that maps (N, channels, factor * h, factor * w) to (N, channels, h, w)."""


@runtime_checkable
class Architecture(Protocol):
    """Makes the pieces of the networks, one stage at a time. The core composes and grows them (`growth/networks.py`).

    Each method is called with torch's generator seeded for that piece, so that variants share their initial weights.

    Optional members tell the core more:

    `separates_batches` (a bool) says that the discriminator gives several batches in one call the scores that each
    would get alone. Its layers then draw no random numbers and keep no state, and where they look across samples they
    ask `pggan_kit.count_batches()` for the number of batches. `pggan_kit.scores_of_each` uses it.

    `batch_statistics(stage, samples) -> Sequence[BatchStatistic]` lists what the networks of a stage compute over the
    samples of a call in training. `pggan-kit plan` and `train` warn where a statistic is computed over one sample. It
    raises a ValueError where the networks cannot be trained with that many samples.

    `images_at_each_stage` (a bool) says that G makes an image at each stage: the newest layer to the image, which then
    has no parameters, reads an image from the features of any stage. `Fakes.stage_images` has them.

    `finish_images(images) -> Tensor` is the last that G does: with images (N, C, h, w) of the layer to the image or,
    within a fade, blended of both paths. It has no parameters.

    The stem of G may be a `StyledStem`, whose latents are mapped to styles first.
    `inherit_to_image(old, new, block)` and `inherit_from_image(old, new, block)` are called when G or D has grown, with
    the layer to or from images of the stage before, the new one, and the new block. They may set the weights of the new
    two so that the network goes on with its function after a hard switch too. They draw no random numbers, and leave
    the old layer, which a bridge may keep, as it is.

    `encoder_head(stage, latent_size) -> nn.Module` makes the head of an encoder, for `train.encoder_architecture`:
    features of the base stage -> codes (N, K), such as latents (K = Z) or means and log-variances (K = 2 Z). All else
    of the encoder is made by `from_image`, `discriminator_block` and `discriminator_bridge`.

    Attributes:
        preserves_function: Whether a network that has just grown computes, at alpha 0, what it computed before.
        conditional: Whether the networks look at labels.
    """

    preserves_function: bool
    conditional: bool

    def generator_stem(self, latent_size: int, stage: Stage) -> nn.Module:
        """Make the stem of G: (latents (N, Z), labels (N,) or None) -> features of the base stage."""

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """Make a block of G: features of `previous` -> features of `stage`."""

    def to_image(self, stage: Stage) -> nn.Module:
        """Make the layer to the image: features -> images (N, C, h, w)."""

    def generator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_to_image: nn.Module
    ) -> nn.Module:
        """Make G's old path of the fade: (features of `previous`, the new to_image) -> images of `stage`.

        Args:
            previous: The stage before.
            stage: The stage that fades in.
            resampling: The pair for images.
            old_to_image: The layer to the image of `previous`, which the bridge owns if it keeps it. The new layer is
                passed at each call.
        """

    def from_image(self, stage: Stage) -> nn.Module:
        """Make the layer from the image: images -> features of `stage`, as D reads them."""

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """Make a block of D: features of `stage` -> features of `previous`."""

    def discriminator_head(self, stage: Stage) -> nn.Module:
        """Make the head of D: (features of the base stage, labels (N,) or None) -> Scores."""

    def discriminator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_from_image: nn.Module
    ) -> nn.Module:
        """Make D's old path of the fade, the mirror of `generator_bridge`.

        It maps (images of `stage`, features of the new from_image, the new from_image) to features of `previous`.
        """


@runtime_checkable
class StyledStem(Protocol):
    """The stem of a generator whose layers read styles, to which latents are mapped. The core calls its two halves.

    So gradients by the styles can be taken, and styles be truncated. L is the number of layers that read a style.
    """

    def map_latents(self, latents: Tensor, labels: Tensor | None, blocks: int, training: bool) -> Tensor:
        """Map latents (N, Z) and labels (N,) to the styles (N, L, W) of the stem's layers and of `blocks` blocks'.

        Where `training`, it may mix the styles of several latents. The stem's own mode does not say so: a frozen stem
        is in inference mode while the network trains.
        """

    def begin(self, styles: Tensor) -> Features:
        """Make the features of the base stage, in which the styles (N, L, W) are handed on to the blocks."""


@runtime_checkable
class Penalty(Protocol):
    """A term on the discriminator that may look at its gradients.

    It may have `runs_critic`, which is False where it looks at the scores that it is given and never calls `critic`: D
    then sees no calls but the update's. Without it, D is taken to be called.

    Attributes:
        weight: Factor of the term; may be per stage or a curve.
        every: Interval in updates of D at which the term is added, multiplied by `every` (lazy regularisation).
    """

    weight: Varying[float]
    every: int

    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, real_scores: Scores, fake_scores: Scores, mix: Tensor
    ) -> Tensor:
        """Compute the unweighted term, 0-dim.

        Args:
            critic: D, to be run on any images. Take gradients with `pggan_kit.image_gradients`.
            real: Reals (N, C, h, w).
            fake: Fakes (N, C, h, w), detached.
            real_scores: Scores of the reals.
            fake_scores: Scores of the fakes.
            mix: Numbers (N,), uniform in [0, 1), one for each sample.
        """


class DuePenalty(NamedTuple):
    """A penalty that the next update of D adds, with its weight at this place of the clock.

    Attributes:
        penalty: The penalty.
        number: Its place among all penalties that were asked about.
        height: Height of the stage's images.
        moves: Whether its weight moves within the stage: then it is a tensor of the batch.
    """

    penalty: Penalty
    number: int
    height: int
    moves: bool

    @property
    def entry(self) -> str:
        """Return the name of `weight * every` in the batch, where the weight moves."""
        return f"weight of {type(self.penalty).__name__} {self.number}"

    def weigh(self, value: Tensor, batch: TensorBatch) -> Tensor:
        """Return the term: the penalty's value times `weight * every`.

        Args:
            value: Value of the penalty, 0-dim.
            batch: The batch, or slice, that `terms` was given.
        """
        if self.moves:
            factor = batch[self.entry]
            assert factor is not None
            return factor * value
        weight = cast("float", at_height(self.penalty.weight, self.height))
        return weight * self.penalty.every * value


@runtime_checkable
class Loss(Protocol):
    """The adversarial game. It never runs a network.

    Attributes:
        needs_real: Whether the generator's terms read the scores of reals.
        penalties: Terms that are added to the discriminator's.
    """

    needs_real: bool
    penalties: Sequence[Penalty]

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """Compute the terms, 0-dim and by name, whose sum D minimises."""

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """Compute the terms, 0-dim and by name, whose sum G minimises; `real` is None unless `needs_real`."""


@dataclass(frozen=True)
class Fakes:
    """The fakes of an update of G, and what they were made from and by, for generator penalties.

    Attributes:
        images: (N, C, h, w), with their graph, as D sees them before the augmentation.
        latents: (N, Z). They require a gradient, and so the images can be differentiated by them.
        labels: (N,), or None where the network is unconditional.
        styles: (N, L, W), to which a `StyledStem` mapped the latents; None for another stem.
        features: The features of each stage: what the stem and each block handed on.
        stage_images: The image of each stage, smallest first, where the architecture has `images_at_each_stage`.
        noise: (N, C, h, w), from N(0, 1); None unless the penalty `needs_noise`.
        memory: The penalty's `memory`, 0-dim, on the device; None where it has none.
        generator: G with alpha bound, to be run on other latents.
        measured: Numbers that were passed to `measure`.
    """

    images: Tensor
    latents: Tensor
    labels: Tensor | None
    styles: Tensor | None
    features: tuple[Features, ...]
    stage_images: tuple[Tensor, ...]
    noise: Tensor | None
    memory: Tensor | None
    generator: GeneratorCall
    measured: list[Tensor] = field(default_factory=list)

    def measure(self, numbers: Tensor) -> None:
        """Take down numbers (N,), whose mean over the whole batch the penalty's `remember` is given."""
        self.measured.append(numbers.detach())


@runtime_checkable
class GeneratorPenalty(Protocol):
    """A term on the generator that may look at what its blocks handed on, and at its gradients.

    The core adds it to G's terms in `StepContext.minimise`, so it goes with any loss and any update.

    Optional members: `check_architecture(architecture)` raises a ValueError, as an experiment is built, where the
    networks cannot serve the penalty. A penalty with a running mean has `memory`, a 0-dim tensor, which it saves and
    loads by its hooks; its call reads `fakes.memory` and passes numbers (N,) to `fakes.measure`; and `remember(mean)`
    is called after the update with their mean (0-dim) over the whole batch, so that ranks and micro-batches change
    nothing.

    Attributes:
        weight: Factor of the term; may be per stage or a curve.
        every: Interval in updates of G at which the term is added, multiplied by `every` (lazy regularisation).
        needs_noise: Whether it reads `fakes.noise`.
    """

    weight: Varying[float]
    every: int
    needs_noise: bool

    def __call__(self, fakes: Fakes) -> Tensor:
        """Compute the unweighted term, 0-dim: a mean over samples, or over pairs of sample i and i + N / 2.

        Take gradients with `pggan_kit.generator_gradients`.
        """


@runtime_checkable
class Augmentation(Protocol):
    """A differentiable transform of reals and fakes alike before D reads them. Draws from torch's default generator.

    It may have `check_at(position)`; see `Update`. `set_to_clock(position)`, where it has that, is called before each
    step, with the place on the clock at which the step begins: what moves with the clock is set there, not in
    `after_step`, which a skipped step does not reach. It must not wait for the device.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Transform images (N, C, h, w) to (N, C, h, w), each by itself: ranks and micro-batches split batches."""


@runtime_checkable
class Optimizer(Protocol):
    """Builds torch optimizers."""

    def build(self, params: Iterable[nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
        """Build an optimizer for these parameters at this stage. The core carries over the state of those that stay.

        Settings that move within a stage are not known here: return the optimizer through `follow_clock`.
        """


class Reals(NamedTuple):
    """A batch of the data: images (N, C, h, w) in [-1, 1], and labels (N,) int64 or None."""

    images: Tensor
    labels: Tensor | None


TensorBatch = Mapping[str, "Tensor | None"]
"""A batch, or a slice of one, as named tensors with N rows each. A 0-dim tensor holds for the whole batch: it is a
number that moves from step to step, which a compiled step takes as it is."""

GeneratorCall = Callable[["Tensor", "Tensor | None"], "Tensor"]
"""The generator: (latents (N, Z), labels (N,) or None) -> images (N, C, h, w)."""


class DiscriminatorCall(Protocol):
    """The discriminator, behind the augmentation.

    It may have `separates_batches`; see `scores_of_each`.
    """

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Scores:
        """Score images (N, C, h, w) with labels (N,).

        Labels go to the head as they are: where an architecture's own head reads a float tensor (N, Z) there, D judges
        pairs of images and latents, as in BiGAN.
        """


Terms = Callable[[GeneratorCall, DiscriminatorCall, TensorBatch], "tuple[dict[str, Tensor], dict[str, Tensor]]"]
"""`terms(G, D, batch) -> (losses, kept)`: terms, 0-dim, whose sum is minimised; and tensors with N rows each that the
update wants back (scores to log, fakes to use again)."""

EncoderCall = Callable[["Tensor"], "Tensor"]
"""The encoder: images (N, C, h, w), without augmentation -> codes (N, K)."""

EncoderTerms = Callable[
    [GeneratorCall, DiscriminatorCall, EncoderCall, TensorBatch], "tuple[dict[str, Tensor], dict[str, Tensor]]"
]
"""`terms(G, D, E, batch)`: `Terms` of an update that trains an encoder, whichever network they move."""


class StepContext(Protocol):
    """One iteration's inputs, drawn by position on the clock, and the means to change weights.

    Attributes:
        stage: The current stage.
        loss: The chosen loss.
    """

    stage: Stage
    loss: Loss

    @property
    def images(self) -> int:
        """Return the clock, including the reals that this iteration has drawn."""

    @property
    def position(self) -> Position:
        """Return the place on the clock at which this iteration began, where its moving settings have their values."""

    def reals(self) -> Reals:
        """Draw the next batch of the data at the stage's size, faded like the networks where `train.fade_reals` is on.

        Images have torch's default dtype.
        """

    def latents(self, stream: str, count: int | None = None) -> Tensor:
        """Draw latents (N, Z), N(0, 1). The same stream at the same place of the clock gives the same latents.

        Args:
            stream: Name of the purpose, such as `generator`.
            count: Number of latents over all ranks; None for the stage's batch size. Of a multiple k of the batch
                size, this rank's first k-th belongs to the first k-th of the whole batch.
        """

    def uniform(self, stream: str) -> Tensor:
        """Draw numbers (N,), uniform in [0, 1), like latents: mixing weights of penalties."""

    def due(self, penalties: Sequence[Penalty]) -> tuple[DuePenalty, ...]:
        """Return the penalties that the next update of D adds: each at its every-th update in the stage.

        An update of D is a call of `minimise` that moves D, however many reals it took. `terms` multiplies the value of
        each by `due_penalty.weigh(value, batch)`: a weight that moves is in the batch that `minimise` hands to it.
        """

    def minimise(
        self, optimizer: str, net: str, terms: Terms | EncoderTerms, batch: TensorBatch, *, inference: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Take one optimizer step that makes the sum of the terms smaller.

        G's terms get those of `train.generator_penalties` that are due. They look at the fakes of the first call of G
        through which gradients flow, and their terms are returned with the others, by the names of their classes.

        Args:
            optimizer: Name of the optimizer among those that the update's `optimizers` returned.
            net: Network whose weights change, `generator`, `discriminator` or `encoder`; the others are fixed.
            terms: Function that computes the terms of the batch, or of a slice of it. In a run with an encoder it is
                called as `terms(G, D, E, batch)`.
            batch: The batch. Put what moves from step to step in it, as a 0-dim tensor: a number that `terms` is bound
                to is a constant of a compiled step.
            inference: Whether the other networks run in inference mode: normalised by their running statistics, which
                stay as they are, and without dropout.

        Returns:
            The terms, and the tensors that `terms` keeps, all detached.
        """


class ChosenOptimizers(Protocol):
    """The optimizers that an experiment chose, for updates with one optimizer for each network.

    Attributes:
        generator_optimizer: Optimizer of G, None where none is bound.
        discriminator_optimizer: Optimizer of D, None where none is bound.
        encoder_optimizer: Optimizer of E, None where none is bound.
    """

    generator_optimizer: Optimizer | None
    discriminator_optimizer: Optimizer | None
    encoder_optimizer: Optimizer | None


@runtime_checkable
class Update(Protocol):
    """One training iteration.

    It may have `batches_in_a_call`, the number of batches that a network sees at once: 2 where reals and fakes go
    through the discriminator together and are compared with each other. Without it, a call has one batch. Penalties
    run D on one batch in any case.

    It may have `count_drawn_batches(position)`, the number of batches of reals that an iteration draws which begins at
    that place of the clock: what is told of a run before it is trained, such as the age of its averages, counts
    iterations by it. Without it, each draws one batch.

    Where a setting of its own moves with the clock, it may have `check_at(position)`, which raises a ConfigError where
    the setting is out of range. It is asked at places all over the schedule before anything is trained.
    An update that trains an encoder beside G and D has `encoder_optimizers(experiment, stage, encoder)`, which returns
    further optimizers by name, like `optimizers`. It needs `train.encoder_architecture`, and its terms are called as
    `terms(G, D, E, batch)`.
    """

    def optimizers(
        self, experiment: ChosenOptimizers, stage: Stage, generator: nn.Module, discriminator: nn.Module
    ) -> dict[str, torch.optim.Optimizer]:
        """Build the optimizers, by name. Called after each growth and each removal of a bridge."""

    def step(self, ctx: StepContext) -> dict[str, Tensor]:
        """Draw through `ctx.reals()` and `ctx.latents()`, change weights through `ctx.minimise()` alone.

        Returns:
            Detached tensors by tag (`Loss/...`, `Scores/...` or a group of your own; not `Progress/`, `Timing/`,
            `Resources/` and `Metrics/`, which are the core's), which are averaged over each tick: 0-dim, or (k,) where
            the step computes a number k times. Leave out what was not computed: a 0 would count as a value.
        """


@runtime_checkable
class Average(Protocol):
    """An average of the generator's weights, or several of one kind.

    After each update of the generator, the average of each piece (stem, block, layer to the image, old path) follows:
    `average += share * (generator - average)`. It begins with the piece, as a copy of it.

    Where the shares are those of power functions of a piece's age (Karras et al. 2024, arXiv:2312.02696, section 3.1),
    two further members let `pggan-kit average` make averages of any width when training is over: `exponents`, the
    exponent of each average; and `snapshots`, the number of places on the clock at which they are kept on disk.

    Attributes:
        names: Names of the averages, at least one. Each occurs once in an experiment.
    """

    names: Sequence[str]

    def compute_shares(self, position: Position, age: int, images: int) -> Sequence[float]:
        """Compute the share by which each of `names` follows in an update: 0 stays as it is, 1 becomes a copy.

        It depends on the arguments alone, so a resumed run needs no state.

        Args:
            position: Place on the clock before the update.
            age: Images from the birth of the piece to that place.
            images: Reals that the update drew, over all ranks.

        Raises:
            SettingError: A setting that moves is out of range there.
        """


@runtime_checkable
class Dataset(Protocol):
    """Images at full size. The core alone resizes and caches them.

    It may have `class_names`, a list with a name for each class, which `sample --class NAME` takes; `left_out`, a dict
    with the number of entries that it did not read, by kind (`{".HEIC": 90}`), which is reported at each start;
    `list_warnings()`, a list of sentences about the images that were read, which are reported after resized copies of
    all were made in one pass; `image_mode(i)`, a text of at most 8 letters of ASCII with the mode that an image has in
    its file, such as `RGBA`, which `data build` counts; `check_stages(stages)`, which raises a `DataError` where its
    images do not suit the stages; `location`, a text that says where the images lie, which `data list` shows;
    `image_name(i)`, a text that names an image in messages; and `row_fingerprints()`, a sequence with a text for each
    image, which is equal if and only if what `image` returns is, and empty where this is not known: where the data set
    changes, only images with new texts are read again. `check_unchanged()`, if there is one, raises a `DataError` where
    files are no longer those that `fingerprint` is of: resized copies of them are not kept.

    Attributes:
        classes: Number of classes, at least 2; 0 where there are no labels.
    """

    classes: int

    def __len__(self) -> int:
        """Return the number of images."""

    def image(self, i: int) -> np.ndarray:
        """Return an image (H, W, C) of uint8, uint16, int16 or float32, with the same C and type for all i.

        float64 becomes float32. Bytes from 0 to 255 become images in [-1, 1]; for other types `data.value_range` says
        which numbers do. Where nothing else is chosen, 1 channel is gray, and 3 are red, green and blue.

        Called from several threads at once (one where `data.workers = 1`). May raise `SkipImage` to leave out an image
        that cannot be read.
        """

    def label(self, i: int) -> int:
        """Return the label of an image, in [0, classes); 0 where there are no labels."""

    def fingerprint(self) -> str:
        """Return a text that is equal if and only if images and labels are. It names their resized copies on disk."""


@runtime_checkable
class Switch(Protocol):
    """The transition from one stage to the next: the hook `fade_alpha`, and `should_advance` where data decides."""

    def fade_alpha(self, stage: Stage, progress: float, images: int, path: str) -> float | None:
        """Return alpha, or None for no opinion; see `hookspecs.fade_alpha`."""


MOMENTS = ("keep", "forget_touched", "forget_at_stages", "forget_at_phases")
"""What a growth policy may let become of the optimizers' moments; see `GrowthPolicy.moments`."""


class Piece(NamedTuple):
    """A part of a network that learns at one speed.

    Attributes:
        net: The network, `generator`, `discriminator` or, where there is one, `encoder`.
        name: `stem`, `block` or `to_image` of G, `from_image`, `block` or `head` of D and of an encoder; or `bridge`,
            the old path of the fade.
        birth: The stage to which its network grew with the piece. The layer to or from the image and the bridge are of
            the newest one, whatever layer of before the bridge keeps. A discriminator that does not grow together with
            G (`schedule.discriminator_height`) has pieces of stages that the run has not reached, or reached before.
    """

    net: str
    name: str
    birth: Stage

    def __str__(self) -> str:
        return f"{self.net}'s {self.name} of {self.birth.size}"

    def is_old(self, position: Position) -> bool:
        """Return whether the network had the piece before the current stage."""
        previous = position.stage.previous
        return previous is not None and self.birth.index <= previous.of(self.net).index


@runtime_checkable
class GrowthPolicy(Protocol):
    """Says how fast each piece of the networks learns, and what becomes of the optimizers' moments as they grow.

    A piece with the factor 0 is frozen: it gets no gradients, no optimizer holds it, and it is a fixed function, in
    inference mode (normalised by its running statistics, without dropout). All its weights and buffers stay equal bit
    for bit, in G's average, too. A piece that learns again begins without moments.

    Attributes:
        moments: When optimizers forget the state that they keep of weights. `keep`: never. `forget_at_stages`: as each
            stage begins. `forget_at_phases`: then, and as each fade ends, where there was an old path.
            `forget_touched`: at these places too, but only the state of those pieces whose surroundings change: the
            layer to or from the image, the bridge, and the newest old piece (the block of the stage before, or the
            stem or head).
    """

    moments: str

    def factor(self, piece: Piece, position: Position) -> float:
        """Return the factor on the learning rate of a piece: 1 for the optimizer's own, 0 to freeze it.

        Called for each piece before each step. It depends on its arguments alone, is finite and at least 0, and leaves
        something of each network to learn.
        """


@dataclass(frozen=True)
class Quantity:
    """What a metric states of one of its values, so that runs can be ranked and compared.

    Args:
        direction: Which values are better, `"lower"` or `"higher"` ones. A run that failed ranks worst.
        range: The smallest and the largest possible value, ends included; infinite where there is no bound.
        scale: The scale on which runs are compared: `"log"` for differences of logarithms (for distances, whose spread
            grows with their size, and which are 0 only where nothing differs at all), or `"plain"` for differences of
            the values themselves.

    Raises:
        SettingError: The direction or scale is unknown, the range is empty, or the scale is `"log"` and values may be
            negative.
    """

    direction: Literal["lower", "higher"]
    range: tuple[float, float] = (-math.inf, math.inf)
    scale: Literal["log", "plain"] = "plain"

    def __post_init__(self) -> None:
        check_choice("direction", self.direction, ("lower", "higher"))
        check_choice("scale", self.scale, ("log", "plain"))
        low, high = self.range
        if not low < high:
            raise SettingError("range", f"must be (smallest, largest), not {self.range}")
        if self.scale == "log" and low < 0:
            raise SettingError("scale", f"'log' needs a range from 0 or above, not {self.range}: take 'plain'")


@runtime_checkable
class Metric(Protocol):
    """A number about images: an `ImageMetric`, or a `RunMetric`, which has `measure_run` instead of `compare`.

    Attributes:
        quantities: Direction, range and scale of each value, by name. A value of one kind may be given several times:
            `Coherence 7x7-28x28` is a value of the quantity `Coherence`, whose name ends at the first space.
    """

    quantities: Mapping[str, Quantity]


@runtime_checkable
class ImageMetric(Metric, Protocol):
    """A distance between fakes and reals, or a quality of fakes, at any image size.

    The core collects the descriptions of all batches, of reals and fakes alike, and compares them once: fakes with
    reals, and, for the noise floor, one half of the reals with the other.
    """

    def describe(self, images: Tensor) -> Tensor | None:
        """Describe images (N, C, h, w) in [-1, 1] by tensors (N, ...), one row of finite numbers for each image.

        Called on the run's device, with torch's generator seeded. Return None where the metric is not defined at this
        size, whatever the images.
        """

    def fingerprint(self) -> str:
        """Return a text that is equal where `describe` is.

        Metrics with one fingerprint share descriptions, and the descriptions of reals are kept on disk under it.
        """

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Compare descriptions (M, ...) of reals and (N, ...) of fakes, on the CPU, with torch's generator seeded.

        Returns:
            Values by name, e.g. `{"FID": 12.3}`.
        """


@dataclass(frozen=True)
class StageEnd:
    """The averaged generator of a run as it was when a stage ended.

    Args:
        stage: The stage.
        images: Clock of its end.
        latent_size: Z.
        classes: Number of classes that the generator is conditioned on; 0 for none.
        generate: Function (latents (N, Z), labels (N,) int64 or None) -> images (N, C, h, w) of the stage's size, in
            [-1, 1] and rounded as the data are, on the CPU. The same arguments give the same images.
    """

    stage: Stage
    images: int
    latent_size: int
    classes: int
    generate: GeneratorCall


@runtime_checkable
class RunMetric(Metric, Protocol):
    """A number about how a run came to its end: of the generators at the ends of its stages. It needs no reals.

    It is measured by `pggan-kit evaluate` and at the end of an ablation's runs; at a run's ticks it has no value.
    """

    def measure_run(self, ends: Sequence[StageEnd]) -> dict[str, float]:
        """Measure a run, with torch's generator seeded.

        Args:
            ends: Ends of those stages that have ended and had images, oldest first; those of the run that this one
                began from among them.

        Returns:
            Values by name; none where the metric is not defined for so few stages.
        """


T = TypeVar("T")


def find_quantity(quantities: Mapping[str, T], name: str) -> T | None:
    """Return what is stated of a value, by its whole name or by its name up to the first space; None if nothing is."""
    if name in quantities:
        return quantities[name]
    return quantities.get(name.partition(" ")[0])


@runtime_checkable
class FeatureExtractor(Protocol):
    """Features of images, for metrics."""

    def __call__(self, images: Tensor) -> Tensor:
        """Compute features (N, F), image by image, of images (N, C, h, w) in [-1, 1], on the images' device."""

    def fingerprint(self) -> str:
        """Return a text that is equal if and only if features are. It names the features that are kept on disk."""


@runtime_checkable
class Observer(Protocol):
    """Watches a run through hooks and changes nothing in it. Exists on rank 0 alone.

    An observer with the attribute `critical = False` cannot end a run: where one of its hooks fails, training
    continues, and the hook is called again from the next tick on; where it is `before_run`, the observer begins with it
    at the next tick. The first failure is a warning; later ones are counted, and the 10th, the 100th, ... are warnings
    again. Only a `UserError` in `before_run`, when nothing is trained yet, and a first state that cannot be saved still
    end the run. Without the attribute, an error in an observer ends the run like an error in any other component.

    What takes long, or fills the disk, has an interval of its own: a setting `every` of type `pggan_kit.Interval`,
    which `check_interval` checks, and `tick.is_due(self.every)` in `after_tick`. For `pggan-kit plan` an observer that
    writes below `run.directory`, and does nothing else, may have a method `estimate_bytes(ticks)`, which is given the
    ticks from the beginning of a run, and returns how many bytes it writes in all, and how many are left in its files.
    `plan` then also times its hooks, in a temporary folder.
    """


@dataclass(frozen=True)
class Trial:
    """A process that a launcher runs: a command that, run again after a failure, continues where it stopped.

    Args:
        name: Name for people, e.g. `hard-3`.
        command: Program and arguments.
        log: File that its output is appended to, in a folder that exists; None to discard the output.
        folder: Working directory; None for the caller's.
        preparation: Python code for the beginning of many trials: it imports what takes long, starts no threads, and
            changes nothing in what a trial does. A launcher may run it once and start trials as forks of that process,
            if their commands are `[sys.executable, "-c", CODE, ...]`; it may also ignore it. None if there is none.
    """

    name: str
    command: Sequence[str]
    log: Path | None = None
    folder: Path | None = None
    preparation: str | None = None


@runtime_checkable
class Launcher(Protocol):
    """Runs trials, many at once, each on its share of the hardware, and runs those again that fail.

    The launcher decides how many run at once, and on how many cores and GPUs. A trial exits with 0 when it is done,
    with 2 when its input was wrong, and with 75 when it has saved at its time limit (`train.time_limit`): it is run
    again then, as often as it takes. Any other exit code is a failure.
    """

    def launch(self, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None = None) -> list[int]:
        """Run each trial to its end, and a trial that fails again, as often as the launcher allows.

        On a KeyboardInterrupt, which is how signals arrive here, send SIGTERM to each running trial so that it saves
        its state, start no other, and raise the interrupt again when all have exited.

        Args:
            trials: The trials, in about the order in which they are started.
            ended: Function that is called with each trial that does not run again and its exit code, in the calling
                thread.

        Returns:
            The last exit code of each trial, in the order of the trials; negative for the number of a signal.
        """


KINDS: dict[str, type] = {
    "architectures": Architecture,
    "resampling": Resampling,
    "losses": Loss,
    "penalties": Penalty,
    "generator_penalties": GeneratorPenalty,
    "updates": Update,
    "augmentations": Augmentation,
    "averages": Average,
    "curves": Curve,
    "optimizers": Optimizer,
    "datasets": Dataset,
    "switches": Switch,
    "growth": GrowthPolicy,
    "metrics": Metric,
    "features": FeatureExtractor,
    "observers": Observer,
    "launchers": Launcher,
}
"""The kinds of component by the name that configs use, and the contract of each."""

VARIANTS: dict[type, tuple[type, ...]] = {Metric: (ImageMetric, RunMetric)}
"""Contracts of which a component keeps one beside that of its kind: the one of which it has most methods."""
