"""TrainState: networks, optimizers and the clock, all of which a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from pggan_kit.errors import RunError, SettingError, first_line
from pggan_kit.experiment import Experiment
from pggan_kit.growth.networks import Discriminator, Generator, Growing
from pggan_kit.runs.average import calibrate_batch_norm, calibration_labels, decay_of_update, is_copy
from pggan_kit.runs.snapshot import SavedMeans, Snapshot, copy_to_cpu
from pggan_kit.schedule import FADE, STABLE, Schedule, Stage
from pggan_kit.system import distributed

N = TypeVar("N", bound=Growing)


class TickMeans:
    """Running means of numbers, kept as 0-dim tensors on their device and read once a tick."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Take in one step's values: 0-dim, or (k,) of what the step computed k times, each of which counts alike. A
        name that is missing in some steps is averaged over those that have it."""
        for name, value in values.items():
            summed = value if value.dim() == 0 else value.sum()
            if name in self.sums:
                self.sums[name] += summed
                self.counts[name] += value.numel()
            else:
                self.sums[name] = summed.detach().to(torch.float32, copy=True)
                self.counts[name] = value.numel()

    def gather(self) -> None:
        """Replace each rank's sums by their mean over all ranks: what rank 0 saves holds for all."""
        distributed.average(list(self.sums.values()))

    def read(self) -> dict[str, float]:
        """The means over all values and ranks, as plain numbers; starts anew. Waits for the device."""
        names = list(self.sums)
        self.gather()
        values = torch.stack([self.sums[name] for name in names]).tolist() if names else []
        means = {name: value / self.counts[name] for name, value in zip(names, values, strict=True)}
        self.sums, self.counts = {}, {}
        return means


class TrainState:
    """Networks, their average, optimizers and the clock.

    Attributes:
        images: reals drawn so far, over all ranks: the one clock.
        steps: iterations so far.
        starts: the clock at which each stage so far began.
        discriminator_updates: updates of D in this stage so far; `StepContext.minimise` counts them.
        last_tick: the clock at the last tick.
        phase: `fade` or `stable`: what the stage is in; it changes when the loop acts on it, not by the clock alone.
        generator, discriminator: the networks, at the size they have grown to.
        optimizers: by the names that the update gave them.
        scalers: of losses, by the network they move; they do nothing unless `train.precision` is `float16`.
        means: what the running tick has gathered.
        dropped: steps that were left out because a loss or gradient was not finite.
        rewinds: how often the run went back for the same reason; each time gets other latents.
        warned_stage: the last stage of which it was said that it may have collapsed; -1 for none.
    """

    def __init__(self, experiment: Experiment, schedule: Schedule, device: torch.device) -> None:
        self.experiment = experiment
        self.schedule = schedule
        self.device = device
        self.images = 0
        self.steps = 0
        self.starts = [0]
        self.discriminator_updates = 0
        self.last_tick = 0
        self.phase = STABLE
        self.means = TickMeans()
        self.dropped = self.rewinds = 0
        self.warned_stage = -1
        if any(True for _ in experiment.image_resampling.up(1, 2).parameters()):
            raise SettingError("train.image_resampling", "must have no parameters: it also resamples reals")
        base = schedule.stages[0]
        pair = (experiment.architecture, experiment.resampling, experiment.image_resampling, experiment.seed)
        self.generator = self._place(Generator(*pair, experiment.latent_size, base))
        self._average = self._place(Generator(*pair, experiment.latent_size, base)).requires_grad_(False)
        self._is_copy = is_copy(experiment, base)
        self._calibrated = False
        self._calibration_labels: Tensor | None = None
        self.discriminator = self._place(Discriminator(*pair, base))
        half = experiment.precision == "float16"
        self.scalers = {
            name: torch.amp.GradScaler(device.type, enabled=half) for name in ("generator", "discriminator")
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.renew_optimizers(reset=True)

    @property
    def stage(self) -> Stage:
        """The stage that the networks have grown to."""
        return self.schedule.stages[len(self.starts) - 1]

    @property
    def fading(self) -> bool:
        """Whether a network has its old path beside the new one."""
        return self.generator.bridge is not None or self.discriminator.bridge is not None

    def stream(self, drawn: int = 0) -> tuple[int | str, ...]:
        """What seeds the random numbers of a place on the clock, besides their purpose."""
        place: tuple[int | str, ...] = (self.images + drawn,)
        return (*place, "rewind", self.rewinds) if self.rewinds else place

    def network(self, name: str) -> Generator | Discriminator:
        """`generator` or `discriminator`."""
        return self.generator if name == "generator" else self.discriminator

    def grow(self, bridged: Mapping[str, bool]) -> None:
        """Begin the next stage here: grow all networks, with bridges for those named in `bridged`."""
        self.starts.append(self.images)
        self.discriminator_updates = 0
        self.phase = FADE if self.stage.fade_images > 0 else STABLE
        self._grow_networks(bridged)

    def end_fade(self) -> None:
        """Drop the bridges."""
        for net in (self.generator, self._average, self.discriminator):
            net.end_fade()
        self._calibrated = False

    def renew_optimizers(self, reset: bool) -> None:
        """Ask the update for optimizers that fit the networks; what stayed keeps its state unless `reset`."""
        old = self.optimizers
        self.optimizers = self.experiment.update.optimizers(
            self.experiment, self.stage, self.generator, self.discriminator
        )
        self._require_scalable()
        if reset:
            return
        for name, optimizer in self.optimizers.items():
            kept = old[name].state if name in old else {}
            for group in optimizer.param_groups:
                for param in group["params"]:
                    if param in kept:
                        optimizer.state[param] = kept[param]

    def _require_scalable(self) -> None:
        """With float16 the optimizer itself leaves out a step whose gradients overflowed, so that nobody waits."""
        for name, optimizer in self.optimizers.items():
            if self.experiment.precision == "float16" and not getattr(optimizer, "_step_supports_amp_scaling", False):
                raise ValueError(
                    f"train.precision 'float16' needs optimizers that take `found_inf`, as fused ones of torch do, and "
                    f"the optimizer {name} is a {type(optimizer).__name__} that does not: choose another, or 'bfloat16'"
                )

    @property
    def ema(self) -> Generator:
        """The generator's exponential moving average; it grows along and lives through all stages.

        Its batch normalisation fits its own features, not those of the generator; that is seen to when somebody asks.
        Where it is no average but a copy, it has the generator's.
        """
        if not (self._calibrated or self._is_copy) and self._average.batch_norms():
            if self._calibration_labels is None:
                self._calibration_labels = calibration_labels(self.experiment, self.stage)
            calibrate_batch_norm(self._average, self._calibration_labels, self.experiment.seed, self.device)
        self._calibrated = True
        return self._average

    @torch.no_grad()
    def follow(self, images: int) -> None:
        """Let the average follow the generator by one update: `ema = decay * ema + (1 - decay) * generator`.

        Args:
            images: reals that the update drew, over all ranks; the clock counts them already.
        """
        self._is_copy = is_copy(self.experiment, self.stage)
        self._calibrated = False
        before = self.images - images
        currents = self.generator.weights_by_birth()
        for birth, averages in self._average.weights_by_birth().items():
            decay = decay_of_update(self.experiment, self.stage, before - self.starts[birth], images)
            torch._foreach_lerp_(averages, currents[birth], 1.0 - decay)
        buffers = (net.followed_buffers(statistics=self._is_copy) for net in (self._average, self.generator))
        for average, current in zip(*buffers, strict=True):
            average.copy_(current)

    def take_snapshot(self) -> Snapshot:
        """Return everything, without copying tensors. What belongs to the run and not to its state is left out."""
        return Snapshot(
            images=self.images,
            steps=self.steps,
            starts=tuple(self.starts),
            discriminator_updates=self.discriminator_updates,
            last_tick=self.last_tick,
            phase=self.phase,
            bridged={name: self.network(name).bridge is not None for name in ("generator", "discriminator")},
            generator=self.generator.state_dict(),
            ema=self.ema.state_dict(),
            discriminator=self.discriminator.state_dict(),
            optimizers={name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            optimizer_classes={name: type(optimizer).__qualname__ for name, optimizer in self.optimizers.items()},
            scalers={name: scaler.state_dict() for name, scaler in self.scalers.items() if scaler.is_enabled()},
            means=SavedMeans(self.means.sums, dict(self.means.counts)),
            dropped=self.dropped,
            rewinds=self.rewinds,
            warned_stage=self.warned_stage,
        )

    def load_snapshot(self, saved: Snapshot, other_optimizers: bool = False) -> dict[str, str]:
        """Become what was saved. Only on a new state of the same experiment.

        Args:
            saved: what `take_snapshot` returned.
            other_optimizers: the experiment is another one, whose optimizers keep their own settings; those of other
                classes or parameters begin anew.

        Returns:
            Optimizers that began anew, and why.

        Raises:
            RunError: a checkpoint of other networks.
        """
        try:
            return self._load(saved, other_optimizers)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise RunError(f"the checkpoint does not fit this experiment: {reason}") from error

    def _load(self, saved: Snapshot, other_optimizers: bool) -> dict[str, str]:
        last = saved.stage
        if last >= len(self.schedule.stages):
            raise RunError(f"the checkpoint stands in stage {last} of a schedule of {len(self.schedule.stages)} stages")
        for index in range(1, last + 1):
            self.starts = [0] * (index + 1)
            self._grow_networks(saved.bridged if index == last else {})

        self.starts = list(saved.starts)
        self.images = saved.images
        self.steps = saved.steps
        self.discriminator_updates = saved.discriminator_updates
        self.last_tick = saved.last_tick
        self.phase = saved.phase
        self.dropped = saved.dropped
        self.rewinds = saved.rewinds
        self.warned_stage = saved.warned_stage

        load_weights(self.generator, saved.generator, "generator")
        load_weights(self._average, saved.ema, "ema")
        load_weights(self.discriminator, saved.discriminator, "discriminator")
        self._is_copy = is_copy(self.experiment, self.stage)
        self._calibrated = True  # what was saved is

        self.renew_optimizers(reset=True)
        anew = self._load_optimizers(saved, other_optimizers)
        for name, scaler in saved.scalers.items():
            self.scalers[name].load_state_dict(scaler)
        self.means.sums = {name: value.to(self.device, copy=True) for name, value in saved.means.sums.items()}
        self.means.counts = dict(saved.means.counts)
        return anew

    def _load_optimizers(self, saved: Snapshot, others: bool) -> dict[str, str]:
        anew: dict[str, str] = {}
        for name, optimizer in self.optimizers.items():
            own, there = type(optimizer).__qualname__, saved.optimizer_classes.get(name)
            if there != own:
                if not others:
                    raise RunError(f"the checkpoint's optimizer {name} is {there}, and this config's is {own}")
                anew[name] = f"{there} there, {own} now"
                continue
            settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
            try:
                # A copy: torch would go on working in the tensors that it is given.
                optimizer.load_state_dict(copy_to_cpu(saved.optimizers[name]))
            except ValueError as error:
                if not others:
                    raise RunError(f"the checkpoint's optimizer {name} does not fit: {error}") from error
                anew[name] = "it has other parameters"
                continue
            lay_out(optimizer)
            if others:
                for group, kept in zip(optimizer.param_groups, settings, strict=True):
                    group.update(kept)
        return anew

    def _grow_networks(self, bridged: Mapping[str, bool]) -> None:
        pairs = ((self.generator, "generator"), (self._average, "generator"), (self.discriminator, "discriminator"))
        for net, name in pairs:
            net.grow(self.stage, bridged.get(name, False))
            self._place(net)
        self._average.requires_grad_(False)
        self._calibrated = False

    def _place(self, net: N) -> N:
        """On the device, with convolutions' weights in the memory format that features shall have."""
        net.to(self.device)
        if self.experiment.memory_format == "channels_last":
            net.channels_last = True
            for param in net.parameters():
                if param.dim() == 4:
                    param.data = param.data.contiguous(memory_format=torch.channels_last)
        return net


def lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give what an optimizer keeps of a parameter that parameter's strides: fused ones look at no strides, and the
    checkpoint may be of a run with another memory format."""
    for param, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == param.shape and value.stride() != param.stride():
                kept[name] = torch.empty_like(param, dtype=value.dtype).copy_(value)


def load_weights(net: nn.Module, saved: Mapping[str, Tensor], name: str) -> None:
    """Load a network's weights.

    Raises:
        RunError: they belong to another architecture; the message names the first piece that differs.
    """
    own = net.state_dict()
    for key in [*own, *saved]:
        have, got = (tuple(d[key].shape) if key in d else "nothing" for d in (own, saved))
        if have != got:
            raise RunError(
                f"the checkpoint's {name} is of another architecture: {key} is {got} there and {have} in this config"
            )
    net.load_state_dict(saved)
