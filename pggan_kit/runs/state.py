"""Hold the state of training: networks, their average, optimizers and the clock, all of which a checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from pggan_kit.errors import RunError, SettingError, first_line
from pggan_kit.experiment import Experiment
from pggan_kit.growth.fade import NETS
from pggan_kit.growth.networks import Discriminator, Generator, GrowingNetwork
from pggan_kit.runs.average import calibrate_batch_norm, compute_decay, draw_calibration_labels, is_copy
from pggan_kit.runs.snapshot import SavedMeans, Snapshot, copy_tensors_to_cpu
from pggan_kit.schedule import FADE, STABLE, Position, Schedule, Stage
from pggan_kit.system import distributed

N = TypeVar("N", bound=GrowingNetwork)


class TickMeans:
    """Running means of numbers, kept as 0-dim tensors on their device and read once a tick.

    The sums have double precision, and their means are rounded to single precision: ranks that are stopped within a
    tick go on from their common mean, and log what they log when they are not stopped.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's values.

        Args:
            values: 0-dim, or (k,) of what the step computed k times, each of which counts alike. A name that is missing
                in some steps is averaged over those that have it.
        """
        for name, value in values.items():
            total = value
            if value.dim() > 0:
                total = value.sum()
            if name in self.sums:
                self.sums[name] += total
                self.counts[name] += value.numel()
            else:
                dtype = torch.float64
                if total.device.type == "mps":  # has no double precision, and no ranks
                    dtype = torch.float32
                self.sums[name] = total.detach().to(dtype, copy=True)
                self.counts[name] = value.numel()

    def gather(self) -> None:
        """Replace each rank's sums by their mean over all ranks: what rank 0 saves is valid for all."""
        distributed.average(list(self.sums.values()))

    def read(self) -> dict[str, float]:
        """Return the means over all values and ranks, as plain numbers, and reset them. Waits for the device."""
        self.gather()
        means: dict[str, float] = {}
        if self.sums:
            # One copy from the device for all of them.
            totals = torch.stack(list(self.sums.values())).cpu().double()
            rounded = (totals / torch.tensor(list(self.counts.values()))).float()
            means = dict(zip(self.sums, rounded.tolist(), strict=True))
        self.sums = {}
        self.counts = {}
        return means


class TrainState:
    """Networks, their average, optimizers and the clock.

    Attributes:
        images: reals drawn so far, over all ranks: the one clock.
        steps: iterations so far.
        starts: the clock at which each stage so far began.
        discriminator_updates: updates of D in this stage so far; `StepContext.minimise` counts them.
        generator_updates: updates of G in this stage so far, counted likewise.
        last_tick: the clock at the last tick.
        phase: `fade` or `stable`, the stage's phase; it changes when the loop acts on it, not by the clock alone.
        generator, discriminator: the networks, at the size they have grown to.
        optimizers: the optimizers, by the names that the update gave them.
        scalers: loss scalers, by the network they move; they do nothing unless `train.precision` is `float16`.
        means: the means of the running tick.
        dropped: steps that were left out because a loss or gradient was not finite.
        rewinds: returns to an earlier checkpoint for the same reason; each return draws other latents.
        warned_stage: the last stage with a warning about collapse; -1 for none.
    """

    def __init__(self, experiment: Experiment, schedule: Schedule, device: torch.device) -> None:
        self.experiment = experiment
        self.schedule = schedule
        self.device = device

        # The clock and the counters.
        self.images = 0
        self.steps = 0
        self.starts = [0]
        self.discriminator_updates = 0
        self.generator_updates = 0
        self.last_tick = 0
        self.phase = STABLE
        self.means = TickMeans()
        self.dropped = 0
        self.rewinds = 0
        self.warned_stage = -1

        # The networks and the average, at the base stage.
        if any(True for _ in experiment.image_resampling.up(1, 2).parameters()):
            raise SettingError("train.image_resampling", "must have no parameters: it also resamples reals")
        base = schedule.stages[0]
        common = (experiment.architecture, experiment.resampling, experiment.image_resampling, experiment.seed)
        self.generator = self._place(build_generator(experiment, base))
        self._average = self._place(build_generator(experiment, base)).requires_grad_(False)
        self._is_copy = is_copy(experiment, base)
        self._calibrated = False
        self._calibration_labels: Tensor | None = None
        self.discriminator = self._place(Discriminator(*common, base))

        # What trains them.
        uses_float16 = experiment.precision == "float16"
        self.scalers = {name: torch.amp.GradScaler(device.type, enabled=uses_float16) for name in NETS}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.renew_optimizers(reset=True)

    @property
    def stage(self) -> Stage:
        """Return the stage that the networks have grown to."""
        return self.schedule.stages[len(self.starts) - 1]

    @property
    def position(self) -> Position:
        """Return the place on the clock."""
        return self.schedule.at(self.images, self.starts)

    @property
    def fading(self) -> bool:
        """Return whether a network has its old path beside the new one."""
        return self.generator.bridge is not None or self.discriminator.bridge is not None

    def make_seed_names(self, drawn: int = 0) -> tuple[int | str, ...]:
        """Return the names that, after their purpose, seed the random numbers of a place on the clock.

        Args:
            drawn: reals that the current step has drawn; the clock does not count them yet.
        """
        names: tuple[int | str, ...] = (self.images + drawn,)
        if self.rewinds:
            names = (*names, "rewind", self.rewinds)
        return names

    def network(self, name: str) -> Generator | Discriminator:
        """Return the network of this name, `generator` or `discriminator`."""
        if name == "generator":
            return self.generator
        return self.discriminator

    def grow(self, bridged: Mapping[str, bool]) -> None:
        """Begin the next stage here: grow all networks, with bridges for those named in `bridged`."""
        self.starts.append(self.images)
        self.discriminator_updates = 0
        self.generator_updates = 0
        self.phase = STABLE
        if self.stage.fade_images > 0:
            self.phase = FADE
        self._grow_networks(bridged)

    def end_fade(self) -> None:
        """Drop the bridges."""
        for net in (self.generator, self._average, self.discriminator):
            net.end_fade()
        self._calibrated = False

    def renew_optimizers(self, reset: bool) -> None:
        """Ask the update for optimizers that fit the networks; parameters that stay keep their state unless `reset`."""
        before = self.optimizers
        self.optimizers = self.experiment.update.optimizers(
            self.experiment, self.stage, self.generator, self.discriminator
        )
        self._require_scalable()
        if reset:
            return

        # State belongs to parameters, whatever group they are in now.
        for name, optimizer in self.optimizers.items():
            if name not in before:
                continue
            kept = before[name].state
            for group in optimizer.param_groups:
                for param in group["params"]:
                    if param in kept:
                        optimizer.state[param] = kept[param]

    def _require_scalable(self) -> None:
        """Check that optimizers can leave out a step whose gradients overflowed in float16, without a wait for it."""
        if self.experiment.precision != "float16":
            return
        for name, optimizer in self.optimizers.items():
            if not getattr(optimizer, "_step_supports_amp_scaling", False):
                raise ValueError(
                    f"train.precision 'float16' needs optimizers that take `found_inf`, as fused ones of torch do, and "
                    f"the optimizer {name} is a {type(optimizer).__name__} that does not: choose another, or 'bfloat16'"
                )

    @property
    def ema(self) -> Generator:
        """Return the generator's exponential moving average, which grows along and lasts through all stages.

        Its batch normalisation fits its own features, not those of the generator; it is calibrated when the average is
        read. Where the settings ask for a copy and not for an average, it has the generator's.
        """
        if not (self._calibrated or self._is_copy) and self._average.find_batch_norms():
            if self._calibration_labels is None:
                self._calibration_labels = draw_calibration_labels(self.experiment, self.stage)
            calibrate_batch_norm(self._average, self._calibration_labels, self.experiment.seed, self.device)
        self._calibrated = True
        return self._average

    @torch.no_grad()
    def update_average(self, images: int) -> None:
        """Update the average after one update of the generator: `ema = decay * ema + (1 - decay) * generator`.

        Args:
            images: reals that the update drew, over all ranks; the clock counts them already.
        """
        self._is_copy = is_copy(self.experiment, self.stage)
        self._calibrated = False

        # Each piece by its own age.
        before = self.images - images
        currents = self.generator.group_weights_by_birth()
        for birth, averages in self._average.group_weights_by_birth().items():
            decay = compute_decay(self.experiment, self.stage, before - self.starts[birth], images)
            torch._foreach_lerp_(averages, currents[birth], 1.0 - decay)

        # Buffers are copied as they are.
        average_buffers = self._average.list_followed_buffers(statistics=self._is_copy)
        current_buffers = self.generator.list_followed_buffers(statistics=self._is_copy)
        for average, current in zip(average_buffers, current_buffers, strict=True):
            average.copy_(current)

    def take_snapshot(self) -> Snapshot:
        """Return the whole state, without copies of tensors; what belongs to the run is left out."""
        return Snapshot(
            images=self.images,
            steps=self.steps,
            starts=tuple(self.starts),
            discriminator_updates=self.discriminator_updates,
            generator_updates=self.generator_updates,
            last_tick=self.last_tick,
            phase=self.phase,
            bridged={name: self.network(name).bridge is not None for name in NETS},
            generator=self.generator.state_dict(),
            # Read through the property, so that its batch normalisation is calibrated.
            ema=self.ema.state_dict(),
            discriminator=self.discriminator.state_dict(),
            optimizers={name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            optimizer_classes={name: type(optimizer).__qualname__ for name, optimizer in self.optimizers.items()},
            scalers={name: scaler.state_dict() for name, scaler in self.scalers.items() if scaler.is_enabled()},
            means=SavedMeans(self.means.sums, dict(self.means.counts)),
            dropped=self.dropped,
            rewinds=self.rewinds,
            warned_stage=self.warned_stage,
            calibration_labels=self._calibration_labels,
        )

    def load_snapshot(
        self, saved: Snapshot, other_optimizers: bool = False, own_settings: bool = False
    ) -> dict[str, str]:
        """Load a snapshot, into a new state of the same experiment.

        Args:
            saved: the snapshot, as `take_snapshot` returned it.
            other_optimizers: whether optimizers may be of other classes or have other parameters; these start from
                scratch.
            own_settings: whether optimizers keep the settings of this experiment (rates, decays) instead of the
                snapshot's.

        Returns:
            Optimizers that start from scratch, and why.

        Raises:
            RunError: a checkpoint of other networks.
        """
        with refuse_unfit_snapshot():
            return self._load(saved, other_optimizers, own_settings)

    def _load(self, saved: Snapshot, other_optimizers: bool, own_settings: bool) -> dict[str, str]:
        # The networks grow to the stage; only the last may have its old path.
        last = saved.stage
        require_stage_in_schedule(saved, self.schedule)
        for index in range(1, last + 1):
            self.starts = [0] * (index + 1)
            bridged: Mapping[str, bool] = {}
            if index == last:
                bridged = saved.bridged
            self._grow_networks(bridged)

        # The clock and the counters.
        self.starts = list(saved.starts)
        self.images = saved.images
        self.steps = saved.steps
        self.discriminator_updates = saved.discriminator_updates
        self.generator_updates = saved.generator_updates
        self.last_tick = saved.last_tick
        self.phase = saved.phase
        self.dropped = saved.dropped
        self.rewinds = saved.rewinds
        self.warned_stage = saved.warned_stage

        # The weights; the average was calibrated when it was saved.
        load_weights(self.generator, saved.generator, "generator")
        load_weights(self._average, saved.ema, "ema")
        load_weights(self.discriminator, saved.discriminator, "discriminator")
        self._is_copy = is_copy(self.experiment, self.stage)
        self._calibrated = True
        self._calibration_labels = saved.calibration_labels

        # What trains the networks, and the means of the running tick.
        self.renew_optimizers(reset=True)
        reset_optimizers = self._load_optimizers(saved, other_optimizers, own_settings)
        for name, scaler in saved.scalers.items():
            self.scalers[name].load_state_dict(scaler)
        self.means.sums = {name: value.to(self.device, copy=True) for name, value in saved.means.sums.items()}
        self.means.counts = dict(saved.means.counts)
        return reset_optimizers

    def _load_optimizers(self, saved: Snapshot, other_optimizers: bool, own_settings: bool) -> dict[str, str]:
        """Load the state of optimizers; return those that start from scratch, and why."""
        reset: dict[str, str] = {}
        for name, optimizer in self.optimizers.items():
            own_class = type(optimizer).__qualname__
            noted_class = saved.optimizer_classes.get(name)
            if noted_class != own_class:
                if not other_optimizers:
                    raise RunError(
                        f"the checkpoint's optimizer {name} is {noted_class}, and this config's is {own_class}: change "
                        "it back, or begin a new run from this one: pggan-kit train CONFIG --from RUN"
                    )
                reset[name] = f"{noted_class} there, {own_class} now"
                continue

            own_groups = [_settings_of_group(group) for group in optimizer.param_groups]
            try:
                # A copy, because torch would go on working in the tensors that it is given.
                optimizer.load_state_dict(copy_tensors_to_cpu(saved.optimizers[name]))
            except ValueError as error:
                if not other_optimizers:
                    raise RunError(f"the checkpoint's optimizer {name} does not fit: {error}") from error
                reset[name] = "it has other parameters"
                continue

            match_strides(optimizer)
            if own_settings:
                for group, settings in zip(optimizer.param_groups, own_groups, strict=True):
                    group.update(settings)
        return reset

    def _grow_networks(self, bridged: Mapping[str, bool]) -> None:
        pairs = ((self.generator, "generator"), (self._average, "generator"), (self.discriminator, "discriminator"))
        for net, name in pairs:
            net.grow(self.stage, bridged.get(name, False))
            self._place(net)
        self._average.requires_grad_(False)
        self._calibrated = False

    def _place(self, net: N) -> N:
        return place_network(net, self.experiment, self.device)


def build_generator(experiment: Experiment, base: Stage) -> Generator:
    """Build a generator at the base stage."""
    return Generator(
        experiment.architecture,
        experiment.resampling,
        experiment.image_resampling,
        experiment.seed,
        experiment.latent_size,
        base,
    )


def place_network(net: N, experiment: Experiment, device: torch.device) -> N:
    """Move a network to a device, and convert its convolutions' weights to the memory format of features."""
    net.to(device)
    if experiment.memory_format == "channels_last":
        net.channels_last = True
        for param in net.parameters():
            if param.dim() == 4:
                param.data = param.data.contiguous(memory_format=torch.channels_last)
    return net


@contextmanager
def refuse_unfit_snapshot() -> Iterator[None]:
    """Turn whatever a snapshot of something else raises while it is loaded into one error.

    Raises:
        RunError: the snapshot does not fit.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise RunError(f"the checkpoint does not fit this experiment: {reason}") from error


def require_stage_in_schedule(saved: Snapshot, schedule: Schedule) -> None:
    """Check that a schedule has the stage that a snapshot is in.

    Raises:
        RunError: it has fewer stages.
    """
    if saved.stage >= len(schedule.stages):
        raise RunError(f"the checkpoint is in stage {saved.stage} of a schedule of {len(schedule.stages)} stages")


def _settings_of_group(group: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in group.items() if name != "params"}


def match_strides(optimizer: torch.optim.Optimizer) -> None:
    """Give the tensors that an optimizer keeps of a parameter that parameter's strides.

    Fused optimizers ignore strides, and the checkpoint may be of a run with another memory format.
    """
    for param, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == param.shape and value.stride() != param.stride():
                kept[name] = torch.empty_like(param, dtype=value.dtype).copy_(value)


def load_weights(net: nn.Module, saved: Mapping[str, Tensor], name: str) -> None:
    """Load a network's weights.

    Args:
        net: the network.
        saved: its weights, by name.
        name: the network's name, for errors.

    Raises:
        RunError: they belong to another architecture; the message names the first piece that differs.
    """
    # Checked here, because torch would list every difference and not the first one.
    own = net.state_dict()
    for key in [*own, *saved]:
        own_shape = _shape_of(own, key)
        saved_shape = _shape_of(saved, key)
        if own_shape != saved_shape:
            raise RunError(
                f"the checkpoint's {name} is of another architecture: {key} is {saved_shape} there and {own_shape} in "
                "this config"
            )
    net.load_state_dict(saved)


def _shape_of(tensors: Mapping[str, Tensor], key: str) -> tuple[int, ...] | str:
    if key not in tensors:
        return "nothing"
    return tuple(tensors[key].shape)
