"""The kinds of component that a config composes, and the contract of each.

from pggan_kit.errors import SettingError, check_choice
Shapes: N samples, C channels, (h, w) a stage's image size, Z the latent size, K classes. Images lie in [-1, 1].
A component may also implement any hook of `hookspecs.py`; it then hears it for the whole run.

What a generator's blocks hand to each other (`Features`) is opaque to the core: a tensor, or a NamedTuple of the
architecture's own. Only images and `Scores` are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from pggan_kit.errors import SettingError, check_choice

if TYPE_CHECKING:
    # torch takes seconds: who names a component, or lists the kinds, does not wait for it.
    import numpy as np
    import torch
    from torch import Tensor, nn

    from pggan_kit.layers.resampling import Downsample, Upsample
    from pggan_kit.schedule import PerStage, Stage

Features = Any


class Component(NamedTuple):
    """A row of a plugin's `components()`: what a config may name as `<kind>.<name>`.

    Attributes:
        kind: a key of `KINDS`.
        name: the name in configs, an identifier.
        factory: a class or function; its parameters become gin's, its annotations are checked.
        defaults: gin values for parameters that nobody bound, e.g. `{"penalties": "[@penalties.R1()]"}`. Use them
            where a default is itself a component, so that configs can reach and override it.
    """

    kind: str
    name: str
    factory: Callable[..., Any]
    defaults: Mapping[str, str] = {}


class Scores(NamedTuple):
    """What a discriminator says of a batch.

    Attributes:
        score: (N,), higher is more real; unbounded.
        class_logits: (N, K), or None where D does not classify.
        labels: (N,) int64, those that D was given, or None.
    """

    score: Tensor
    class_logits: Tensor | None = None
    labels: Tensor | None = None

    def rows(self, rows: slice) -> Scores:
        """Those of some of the batch's samples."""
        logits, labels = self.class_logits, self.labels
        return Scores(
            self.score[rows], None if logits is None else logits[rows], None if labels is None else labels[rows]
        )


class BatchStatistic(NamedTuple):
    """Something that a network computes over several samples of a call.

    Attributes:
        net: `generator` or `discriminator`.
        name: for people, e.g. `minibatch stddev`.
        group: how many samples it is computed over, at least 1.
        alone: what it is where `group` is 1, e.g. `a constant`: the end of a sentence that begins with its name.
    """

    net: str
    name: str
    group: int
    alone: str


Critic = Callable[["Tensor"], Scores]
"""A discriminator with its labels, alpha and augmentation bound: images (N, C, h, w) -> Scores."""


@runtime_checkable
class Resampling(Protocol):
    """A matched pair of modules that change the size of features, for any whole factor of at least 2."""

    def up(self, channels: int, factor: int) -> Upsample:
        """(N, channels, h, w) -> (N, channels, factor * h, factor * w)."""

    def down(self, channels: int, factor: int) -> Downsample:
        """(N, channels, factor * h, factor * w) -> (N, channels, h, w)."""


@runtime_checkable
class Architecture(Protocol):
    """Makes the pieces of both networks, one stage's at a time. The core composes and grows them (`networks.py`).

    Each call is made with torch's generator seeded for that piece, so variants share their initial weights.
    `preserves_function` says whether, at alpha 0, a grown network computes what it computed before; `conditional`,
    whether the networks look at labels.

    It may have `separates_batches`, for the discriminator: several batches in one call get the scores that each would
    get alone. Its layers draw no random numbers, keep no state, and where they look across samples they ask
    `pggan_kit.count_batches()` how many there are. `pggan_kit.scores_of_each` then makes one call of several.

    It may have `batch_statistics(stage, samples) -> Sequence[BatchStatistic]`: what the networks of that stage compute
    over the samples of a call in training, where a call has so many. `pggan-kit plan` and `train` say where a
    statistic is computed over one sample alone. It raises a ValueError where the networks cannot be trained with so
    few samples.
    """

    preserves_function: bool
    conditional: bool

    def generator_stem(self, latent_size: int, stage: Stage) -> nn.Module:
        """(latents (N, Z), labels (N,) | None) -> features of the base stage."""

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """features of `previous` -> features of `stage`."""

    def to_image(self, stage: Stage) -> nn.Module:
        """features -> images (N, C, h, w)."""

    def generator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_to_image: nn.Module
    ) -> nn.Module:
        """(features of `previous`, the new to_image) -> images of `stage`: the old path of the fade.

        It owns `old_to_image` if it keeps it; the new one is lent per call. `resampling` is the pair for images.
        """

    def from_image(self, stage: Stage) -> nn.Module:
        """images -> features of `stage`, as D sees them."""

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Resampling) -> nn.Module:
        """features of `stage` -> features of `previous`."""

    def discriminator_head(self, stage: Stage) -> nn.Module:
        """(features of the base stage, labels (N,) | None) -> Scores."""

    def discriminator_bridge(
        self, previous: Stage, stage: Stage, resampling: Resampling, old_from_image: nn.Module
    ) -> nn.Module:
        """(images of `stage`, the new from_image's features, the new from_image) -> features of `previous`."""


@runtime_checkable
class Penalty(Protocol):
    """A term on the discriminator that may look at its gradients.

    Attributes:
        weight: factor of the term; may be per stage.
        every: the term is added at each `every`-th update of D, multiplied by `every` (lazy regularisation).
    """

    weight: PerStage[float]
    every: int

    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, real_scores: Scores, fake_scores: Scores, mix: Tensor
    ) -> Tensor:
        """The unweighted term, 0-dim.

        Args:
            critic: D, to be run again on images of choice; take gradients with `pggan_kit.image_gradients`.
            real, fake: (N, C, h, w); the fakes are detached.
            real_scores, fake_scores: what D said of them.
            mix: (N,) uniform in [0, 1), one number per sample.
        """


@runtime_checkable
class Loss(Protocol):
    """The adversarial game. It never runs a network.

    Attributes:
        needs_real: the generator's part reads the scores of reals.
        penalties: terms that are added to the discriminator's.
    """

    needs_real: bool
    penalties: Sequence[Penalty]

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """Named 0-dim terms whose sum D minimises."""

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """Named 0-dim terms whose sum G minimises; `real` is None unless `needs_real`."""


@runtime_checkable
class Augmentation(Protocol):
    """What D sees of reals and fakes alike. Differentiable; draws from torch's default generator."""

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""


@runtime_checkable
class Optimizer(Protocol):
    """Builds torch optimizers."""

    def build(self, params: Iterable[nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
        """A new optimizer for these parameters at this stage. The core carries over the state of those that stay."""


class Reals(NamedTuple):
    """A batch of the data: images (N, C, h, w) in [-1, 1], and labels (N,) int64 or None."""

    images: Tensor
    labels: Tensor | None


Part = Mapping[str, "Tensor | None"]
"""A batch as named tensors with N rows each."""

GeneratorCall = Callable[["Tensor", "Tensor | None"], "Tensor"]
"""The generator: (latents (N, Z), labels (N,) or None) -> images (N, C, h, w)."""


class DiscriminatorCall(Protocol):
    """The discriminator, behind the augmentation.

    It may have `separates_batches`, see `scores_of_each`.
    """

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Scores:
        """Scores of images (N, C, h, w) with labels (N,)."""


Terms = Callable[[GeneratorCall, DiscriminatorCall, Part], "tuple[dict[str, Tensor], dict[str, Tensor]]"]
"""`terms(G, D, part) -> (losses, kept)`: 0-dim terms to be summed and minimised, and tensors with N rows each that the
update wants back (scores to log, fakes to use again)."""


class StepContext(Protocol):
    """One iteration's inputs, drawn by position on the clock, and the means to change weights.

    Attributes:
        stage: the current stage.
        loss: the chosen loss.
    """

    stage: Stage
    loss: Loss

    @property
    def images(self) -> int:
        """The clock, with what this iteration has drawn so far."""

    def reals(self) -> Reals:
        """The next batch of the data, at the stage's size, faded like the networks where `train.fade_reals` is on.

        Images have torch's default dtype.
        """

    def latents(self, stream: str, count: int | None = None) -> Tensor:
        """A batch of latents (N, Z), N(0, 1). The same stream at the same position gives the same latents.

        Args:
            stream: what they are for.
            count: how many, over all ranks; None: the stage's batch size. Of a multiple k of it, this rank's first
                k-th belongs to the first k-th of the whole batch.
        """

    def uniform(self, stream: str) -> Tensor:
        """(N,) uniform in [0, 1), drawn like latents: mixing weights of penalties."""

    def due(self, penalties: Sequence[Penalty]) -> tuple[Penalty, ...]:
        """Return those of the penalties that the next update of D adds: each at its every-th update of the stage.

        What counts is how often `minimise` has moved D since the stage began, however many reals that took.
        """

    def minimise(
        self, optimizer: str, net: str, terms: Terms, part: Part, *, inference: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Take one optimizer step that makes the sum of the terms smaller.

        Args:
            optimizer: its name in what the update's `optimizers` returned.
            net: `generator` or `discriminator`, the network whose weights change.
            terms: computes the terms from a part of the batch.
            part: the batch.
            inference: run the other network in inference mode: it normalises by its running statistics and leaves
                them alone, and drops nothing out.

        Returns:
            The detached terms, and what `terms` wanted kept, detached.
        """


class ChosenOptimizers(Protocol):
    """The optimizers that an experiment chose, for updates with one for each network.

    Attributes:
        generator_optimizer, discriminator_optimizer: None where none is bound.
    """

    generator_optimizer: Optimizer | None
    discriminator_optimizer: Optimizer | None


@runtime_checkable
class Update(Protocol):
    """One training iteration.

    It may have `batches_in_a_call`: how many batches a network sees at once, as 2 where reals and fakes go through the
    discriminator together and are compared with each other. Without it a call has one batch.
    """

    def optimizers(
        self, experiment: ChosenOptimizers, stage: Stage, generator: nn.Module, discriminator: nn.Module
    ) -> dict[str, torch.optim.Optimizer]:
        """The optimizers by name, asked for after each growth and each removal of a bridge."""

    def step(self, ctx: StepContext) -> dict[str, Tensor]:
        """Draw through `ctx.reals()` and `ctx.latents()`, change weights through `ctx.minimise()` alone.

        Returns:
            Detached tensors by tag (`Loss/...`, `Scores/...`), which are averaged over each tick: 0-dim, or (k,) where
            the step computes a number k times. What it did not compute it leaves out: a 0 would count as a value.
        """


@runtime_checkable
class Dataset(Protocol):
    """Full-size images. `data.py` alone resizes and caches them.

    Attributes:
        classes: the number of classes; 0 where there are no labels.
    """

    classes: int

    def __len__(self) -> int:
        """How many images."""

    def image(self, i: int) -> np.ndarray:
        """uint8 (H, W, C); C is 1 for gray, 3 for colour, and equal for all i.

        Called from several threads at once (`data.workers = 1` asks for one). May raise `SkipImage` to leave a broken
        image out.
        """

    def label(self, i: int) -> int:
        """In [0, classes); 0 where there are no labels."""

    def fingerprint(self) -> str:
        """Equal if and only if images and labels are equal; names their resized copies on disk."""


@runtime_checkable
class Switch(Protocol):
    """How one stage gives way to the next: implements the hook `fade_alpha`, and `should_advance` if data-driven."""

    def fade_alpha(self, stage: Stage, progress: float, images: int, path: str) -> float | None:
        """See `hookspecs.fade_alpha`."""


@dataclass(frozen=True)
class Quantity:
    """What a metric states of one of its values, so that runs can be ranked and compared.

    Args:
        direction: which values are better, `"lower"` or `"higher"` ones. A run that failed ranks worst.
        range: the smallest and the largest possible value, ends included; infinite where there is no bound.
        scale: on which runs are compared: `"log"` for differences of logarithms (of distances, whose spread grows with
            their size, and which are 0 only where nothing differs at all), or `"plain"` for those of the values.

    Raises:
        SettingError: an unknown direction or scale, an empty range, or the scale `"log"` of values that may be
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
    """How far fakes are from reals, at whatever size they have.

    The core keeps what `describe` says of each batch, of reals and fakes alike, and compares all of it once: fakes with
    reals, and, for the noise floor, one half of the reals with the other.

    Attributes:
        quantities: for each name that `compare` may return, what is known of its values beforehand.
    """

    quantities: Mapping[str, Quantity]

    def describe(self, images: Tensor) -> Tensor | None:
        """What a comparison needs of images: (N, C, h, w) in [-1, 1] -> (N, ...), one row for each image.

        Called on the run's device, with torch's generator seeded. None: the metric is not defined at this size.
        """

    def fingerprint(self) -> str:
        """Equal where `describe` is: such metrics share what it says, and that of reals is kept on disk under it."""

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Values by name, e.g. `{"FID": 12.3}`, of descriptions (M, ...) and (N, ...), on the CPU. torch is seeded."""


@runtime_checkable
class FeatureExtractor(Protocol):
    """Features of images, for metrics."""

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, h, w) in [-1, 1], on any device -> (N, F) there, image by image."""

    def fingerprint(self) -> str:
        """Equal if and only if the features of equal images are equal; names those that are kept on disk."""


@runtime_checkable
class Observer(Protocol):
    """Watches a run through hooks and changes nothing in it. Lives on rank 0.

    One with the attribute `critical = False` cannot end a run: where one of its hooks fails, it hears `on_error`, is
    switched off with a warning, and the run goes on. Only a `UserError` in `before_run` still ends the run, when
    nothing is trained yet. Without the attribute an error in an observer ends the run, as in any other part.
    """


@dataclass(frozen=True)
class Trial:
    """A process that a launcher is to run: a command that, run again after a death, goes on where it stopped.

    Args:
        name: for people, e.g. `hard-3`.
        command: program and arguments.
        log: where its output is added, in a folder that exists; None: it is thrown away.
        folder: its working directory; None: the caller's.
    """

    name: str
    command: Sequence[str]
    log: Path | None = None
    folder: Path | None = None


@runtime_checkable
class Launcher(Protocol):
    """Runs trials somewhere, many at once, each on its share of the hardware, and survives their deaths.

    How many at once, and on how many cores and GPUs, is the launcher's own to know. The exit codes of a trial: 0, it is
    done; 2, its input was wrong; anything else is a death.
    """

    def launch(self, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None = None) -> list[int]:
        """Run each trial to its end; one that dies is run again, as often as the launcher allows.

        A KeyboardInterrupt (which is how signals arrive here) is handed on: each running trial is sent SIGTERM, so that
        it saves what it has, none is started any more, and when all have ended it is raised again.

        Args:
            trials: what to run, in about this order.
            ended: told of each trial that runs no more, and its exit code, in the calling thread.

        Returns:
            The last exit code of each trial, in the order of the trials; a signal's number negative.
        """


KINDS: dict[str, type] = {
    "architectures": Architecture,
    "resampling": Resampling,
    "losses": Loss,
    "penalties": Penalty,
    "updates": Update,
    "augmentations": Augmentation,
    "optimizers": Optimizer,
    "datasets": Dataset,
    "switches": Switch,
    "metrics": Metric,
    "features": FeatureExtractor,
    "observers": Observer,
    "launchers": Launcher,
}
