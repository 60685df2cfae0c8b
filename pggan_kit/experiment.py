"""The experiment: chosen components and settings, checked before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field

import torch

from pggan_kit.components import (
    MOMENTS,
    Architecture,
    Augmentation,
    Average,
    Dataset,
    GeneratorPenalty,
    GrowthPolicy,
    ImageMetric,
    Loss,
    Metric,
    Observer,
    Optimizer,
    Quantity,
    Resampling,
    RunMetric,
    Switch,
    Update,
)
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import (
    SettingError,
    check_above,
    check_at_least,
    check_between,
    check_choice,
    check_seed,
    did_you_mean,
    suggest,
)
from pggan_kit.evaluation.settings import EvaluationSettings
from pggan_kit.growth.averages import HalfLife, check_names
from pggan_kit.growth.fade import ENCODER, NETS
from pggan_kit.layers.resampling import Area
from pggan_kit.pictures.channels import PictureSettings
from pggan_kit.schedule import PerStage, ScheduleSettings, Stage, at_height, check_sizes, values_per_stage
from pggan_kit.system.devices import computes_bfloat16
from pggan_kit.ticks import Interval, check_interval

PRECISIONS = ("float32", "bfloat16", "float16", "auto")
COMPILE = ("never", "auto", "always")
CAPTURE = ("auto", "never")
DETERMINISTIC = ("never", "warn", "always")
MEMORY_FORMATS = ("channels_last", "contiguous")
NON_FINITE = ("stop", "skip", "rewind")
NOTHING = "nothing"
KEEP_STAGES = ("state", "weights", "average", NOTHING)


@dataclass
class Experiment:
    """The settings and components that `train.*` binds in a config, with those of `schedule`, `data`, `evaluation` and
    `pictures`.

    Args:
        schedule: Settings that `schedule.*` binds.
        data: Settings that `data.*` binds.
        evaluation: Settings that `evaluation.*` binds.
        pictures: Settings that `pictures.*` binds.
        architecture: The networks' pieces.
        discriminator_architecture: The pieces of D, where they come from another architecture than those of G. None for
            `architecture`.
        encoder_architecture: The pieces of an encoder E, which reads images as a discriminator does, for updates that
            train one; it needs an `encoder_head`. E has the stages of G and the alphas of D, and is given no labels,
            whatever the architecture does with them in the others. None for no encoder.
        resampling: The pair that changes the size of features.
        loss: The adversarial loss, with its penalties on D.
        generator_penalties: Terms that are added to G's, whatever the loss and the update are.
        update: One training iteration.
        dataset: The data.
        generator_optimizer: Optimizer of G, for updates with one optimizer for each network.
        discriminator_optimizer: Optimizer of D, likewise.
        encoder_optimizer: Optimizer of E, likewise.
        switch: Transition between stages. None for a linear fade.
        growth: How fast each piece of the networks learns, and what becomes of the optimizers' moments. None:
            everything learns, and moments are kept.
        image_resampling: The pair for images (bridges, faded reals), without parameters. Default: nearest up, area
            down.
        augmentation: Transform of reals and fakes before D. None to show D the images themselves.
        averages: Averages of G's weights, at least one. The first one is sampled, measured and shown unless another is
            named. Default: a half-life of 10,000 images.
        observers: Watchers of the run.
        metrics: Metrics of the averaged generator, measured as `evaluation` says, at ticks and by `pggan-kit evaluate`.
        latent_size: Size of a latent, Z.
        seed: Seed of all randomness, from 0 to 2**63 - 1. Two experiments with one seed see the same images and
            latents.
        network_seed: Seed of the networks' initial weights, with the range of `seed`. None for `seed`.
        tick: Images between two ticks, each of which has a row of numbers. All else happens at ticks too, at intervals
            of its own. A run begins with ticks at a 16th, an 8th, a quarter and half of it, those of them that are at
            least 4 batches.
        checkpoint_every: Images between two checkpoints, at ticks; may be per stage. `'phase'` for the ends of fades
            and stages alone, which have one in any case. None for every hundredth of the run. A run that is asked to
            stop writes one as well.
        diversity_every: Images between two measurements of `Progress/diversity`, likewise.
        fade_reals: Whether reals are faded like the networks.
        keep: Number of the last checkpoints that are kept, besides what `keep_stages` says.
        keep_stages: Part of the checkpoints at the ends of fades and stages that is kept for good: the whole `state`;
            the `weights` of networks and averages, with which `--stem` works but not `--from RUN@STAGE`; the `average`
            of the generator, with which neither does; or `nothing`, with which a finished stage cannot be sampled
            either. The last checkpoint of a run is always whole.
        keep_best: Name of a value of `metrics`, as `'FID'`. The checkpoint of the tick where it was best is kept as
            well, under a name of its own (`--checkpoint best`). Values at different sizes do not compare, so each stage
            begins again. None to keep none.
        micro_batch: Rows of a batch that a process works on at once, at least 1; may be per stage. Gradients are summed
            over the slices before the optimizer steps: less memory, and the result of the whole batch. Requirements and
            exceptions are in docs/distributed.md. None, or no less than the batch, for the whole batch.
        precision: Precision of convolutions and matrix products: `float32`, `bfloat16` (autocast; weights, losses,
            statistics and the average stay float32), `float16` (the same, with scaled losses; needs optimizers that
            take `found_inf`, such as torch's fused ones), or `auto`: bfloat16 where the device computes it natively,
            else float32.
        tf32: Whether a CUDA device may round the inputs of float32 convolutions and products to TensorFloat-32 (10 bits
            of mantissa), which is faster. Other devices ignore it.
        deterministic: Whether a CUDA device uses kernels alone that give the same bits each time, which are slower:
            `never`; `warn` of operations that have none, and run them; or `always`, where such an operation ends the
            run. Other devices ignore it: on a CPU the bits are the same in any case.
        memory_format: Layout of features in memory, `channels_last` or `contiguous`. Results are the same up to
            rounding; the speed differs.
        compile: When whole steps are compiled, which takes a C++ compiler and a minute for each stage and fade:
            `never`; `always`; or `auto`: where a stage's fade, or the rest of it, has enough steps to pay (`plan` says
            where).
        capture: Whether a GPU replays whole steps as CUDA graphs, which equal eager steps bit for bit and cost the host
            next to nothing: `auto`, for the steps that can be captured; or `never`. Other devices ignore it.
        non_finite: Reaction to a loss or gradient that is NaN or infinite (docs/reliability.md): `stop` with the state
            before the step saved, `skip` the step, or `rewind` to the last checkpoint and draw other latents.
        non_finite_limit: Maximum number of skipped steps, or of rewinds, in the whole run.
        collapse_below: Diversity below which a warning is given, once a stage, in [0, 1): the spread of the
            generator's images in units of the data's (`Progress/diversity`). 0 measures nothing.
        time_limit: Seconds of training after which this process saves and stops, for jobs with a limit, but not before
            its first step. The run can be resumed. None for no limit.
        device: A torch device, or `auto` for a GPU where there is one.

    Raises:
        SettingError: A setting is out of range; the message begins with its name.
    """

    _: KW_ONLY
    schedule: ScheduleSettings
    data: DataSettings
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    pictures: PictureSettings = field(default_factory=PictureSettings)
    architecture: Architecture
    resampling: Resampling
    loss: Loss
    update: Update
    dataset: Dataset
    discriminator_architecture: Architecture | None = None
    encoder_architecture: Architecture | None = None
    generator_penalties: Sequence[GeneratorPenalty] = ()
    generator_optimizer: Optimizer | None = None
    discriminator_optimizer: Optimizer | None = None
    encoder_optimizer: Optimizer | None = None
    switch: Switch | None = None
    growth: GrowthPolicy | None = None
    image_resampling: Resampling = field(default_factory=Area)
    augmentation: Augmentation | None = None
    averages: Sequence[Average] = field(default_factory=lambda: (HalfLife(),))
    observers: Sequence[Observer] = ()
    metrics: Sequence[Metric] = ()
    latent_size: int = 512
    seed: int = 0
    network_seed: int | None = None
    tick: int = 10_000
    checkpoint_every: Interval = None
    diversity_every: Interval = None
    fade_reals: bool = True
    keep: int = 2
    keep_stages: str = "state"
    keep_best: str | None = None
    micro_batch: PerStage[int] | None = None
    precision: str = "float32"
    tf32: bool = False
    deterministic: str = "never"
    memory_format: str = "channels_last"
    compile: str = "never"
    capture: str = "auto"
    non_finite: str = "stop"
    non_finite_limit: int = 10
    collapse_below: float = 0.05
    time_limit: float | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("latent_size", "tick", "keep", "non_finite_limit"):
            check_at_least(name, getattr(self, name), 1)
        check_seed("seed", self.seed)
        if self.network_seed is not None:
            check_seed("network_seed", self.network_seed)

        # What is per stage is checked at the sizes that there are.
        sizes = check_sizes(self.schedule.sizes)
        check_interval("checkpoint_every", self.checkpoint_every, sizes)
        check_interval("diversity_every", self.diversity_every, sizes)
        try:
            check_interval("every", self.evaluation.every, sizes)
        except SettingError as error:
            raise SettingError("evaluation.every", error.complaint) from error
        for micro_batch in values_per_stage("micro_batch", self.micro_batch, sizes):
            check_at_least("micro_batch", micro_batch, 1)
        check_names(self.averages)
        self._check_best()
        self._check_stage_ends()
        check_between("collapse_below", self.collapse_below, 0, 1, high_included=False)
        check_above("time_limit", self.time_limit, 0, instead="None")

        choices = {
            "precision": PRECISIONS,
            "memory_format": MEMORY_FORMATS,
            "deterministic": DETERMINISTIC,
            "compile": COMPILE,
            "capture": CAPTURE,
            "non_finite": NON_FINITE,
            "keep_stages": KEEP_STAGES,
        }
        for name, allowed in choices.items():
            check_choice(name, getattr(self, name), allowed)
        if self.growth is not None:
            check_choice("growth.moments", self.growth.moments, MOMENTS)

        # Settings that depend on one another.
        self._check_encoder()
        self._check_generator_penalties()

    def _check_encoder(self) -> None:
        architecture = self.encoder_architecture
        trains_encoder = hasattr(self.update, "encoder_optimizers")
        if architecture is None:
            if trains_encoder:
                raise SettingError("update", "trains an encoder, and there is none: bind train.encoder_architecture")
            if self.encoder_optimizer is not None:
                raise SettingError(
                    "encoder_optimizer", "is bound, and there is no encoder: bind train.encoder_architecture as well"
                )
            return

        # An encoder needs an architecture that can make it, and an update that trains it.
        if not hasattr(architecture, "encoder_head"):
            name = type(architecture).__name__
            raise SettingError(
                "encoder_architecture", f"needs a method encoder_head(stage, latent_size): {name} has none"
            )
        if not trains_encoder:
            name = type(self.update).__name__
            raise SettingError(
                "encoder_architecture",
                f"is bound, and train.update ({name}) trains no encoder: bind it to None, or choose an update that has "
                "encoder_optimizers()",
            )

    def _check_generator_penalties(self) -> None:
        for penalty in self.generator_penalties:
            check = getattr(penalty, "check_architecture", None)
            if check is None:
                continue
            try:
                check(self.architecture)
            except ValueError as error:
                complaint = f"do not suit the architecture: {error}"
                raise SettingError("generator_penalties", complaint) from error

    def _check_best(self) -> None:
        if self.keep_best is None:
            return

        # The best is chosen by a value that is measured.
        quantities = self.list_quantities()
        if not quantities:
            raise SettingError(
                "keep_best", f"is {self.keep_best!r}, and no metric is measured: bind train.metrics, or bind it to None"
            )
        if self.keep_best not in quantities:
            raise SettingError(
                "keep_best",
                f"must be a value of train.metrics ({', '.join(quantities)}), not {self.keep_best!r}"
                f"{suggest(did_you_mean(self.keep_best, quantities))}",
            )

    def _check_stage_ends(self) -> None:
        for metric in self.metrics:
            if self.keep_stages == NOTHING and isinstance(metric, RunMetric):
                raise SettingError(
                    "keep_stages",
                    f"is 'nothing', and metrics.{type(metric).__name__} compares the ends of stages: bind it to "
                    "'average', or leave the metric out",
                )

    def list_quantities(self) -> dict[str, Quantity]:
        """Return what the metrics that are measured at ticks state of their values, by the value's name."""
        at_ticks = [metric for metric in self.metrics if isinstance(metric, ImageMetric)]
        return {name: quantity for metric in at_ticks for name, quantity in metric.quantities.items()}

    @property
    def nets(self) -> tuple[str, ...]:
        """Return the names of the networks."""
        if self.encoder_architecture is None:
            return NETS
        return (*NETS, ENCODER)

    def find_architecture(self, net: str) -> Architecture:
        """Return the architecture that makes the pieces of a network, `generator`, `discriminator` or `encoder`."""
        if net == ENCODER and self.encoder_architecture is not None:
            return self.encoder_architecture
        if net == "discriminator" and self.discriminator_architecture is not None:
            return self.discriminator_architecture
        return self.architecture

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return a context in which networks on a device compute in `precision`."""
        if self.precision == "float16":
            return torch.autocast(device.type, torch.float16)

        # bfloat16 without native support would be slower than float32.
        low = self.precision == "bfloat16" or (self.precision == "auto" and computes_bfloat16(device))
        return torch.autocast(device.type, torch.bfloat16, enabled=low)

    def count_micro_batches(self, stage: Stage, rows: int) -> int:
        """Return the number of slices that a process cuts its `rows` of a stage's batch into.

        Raises:
            SettingError: `micro_batch` does not divide them.
        """
        size = rows
        if self.micro_batch is not None:
            size = min(rows, at_height(self.micro_batch, stage.height))
        if rows % size:
            complaint = f"{size} does not divide a process's {rows} images a batch at {stage.size}"
            raise SettingError("micro_batch", complaint)
        return rows // size
